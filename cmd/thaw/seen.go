package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// Beside a lesson the directory "playout" of a store has the pages that machines have asked for beside the
// working set, in ID.asked: runs of pages, as "first count" on a line each. They are hints: repacking stores
// these pages so that they are quick to read.
const askedSuffix = ".asked"

// maxAskedText bounds such a file, in bytes.
const maxAskedText = 1 << 20

// seen says which pages of a checkpoint machines have asked for. What cannot be read is not known.
func (l lessons) seen(c index.Checkpoint) []index.Run {
	runs, err := l.loadAsked(c.ID)
	if err != nil {
		return nil
	}
	return runs
}

func (l lessons) loadAsked(id string) ([]index.Run, error) {
	name, err := l.name(id)
	if err != nil {
		return nil, err
	}
	text, err := l.read(name+askedSuffix, maxAskedText-1)
	if err != nil {
		return nil, err
	}
	return parseAsked(bytes.NewReader(text))
}

var _ fs.Asked = lessons{}

// SaveAsked implements fs.Asked.
func (l lessons) SaveAsked(id string, runs []fs.PageRun) error {
	name, err := l.name(id)
	if err != nil {
		return err
	}
	before, err := l.loadAsked(id)
	if err != nil {
		before = nil // there is none, or it is of no use
	}
	all := merged(before, runs)
	if slices.Equal(all, before) {
		return nil
	}
	var text bytes.Buffer
	for _, r := range all {
		fmt.Fprintf(&text, "%d %d\n", r.GFN, r.Count)
	}
	if text.Len() > maxAskedText {
		return fmt.Errorf("a list of pages of %d bytes, at most %d can be", text.Len(), maxAskedText)
	}
	return l.write(name+askedSuffix, text.Bytes())
}

// merged returns the pages of two lists of runs, ascending. If they are too many it is the new ones: what
// machines ask for changes.
func merged(before []index.Run, now []fs.PageRun) (all []index.Run) {
	for _, r := range now {
		all = append(all, index.Run{GFN: r.First, Count: r.Count})
	}
	if both := joined(append(slices.Clone(before), all...)); pagesIn(both) <= maxAskedPages {
		return both
	}
	return joined(all)
}

// maxAskedPages bounds the pages in a list.
const maxAskedPages = 1 << 16

// joined sorts runs, and joins those that touch.
func joined(runs []index.Run) (out []index.Run) {
	slices.SortFunc(runs, func(a, b index.Run) int { return cmp.Compare(a.GFN, b.GFN) })
	for _, r := range runs {
		last := len(out) - 1
		if last >= 0 && r.GFN <= out[last].GFN+out[last].Count {
			out[last].Count = max(out[last].GFN+out[last].Count, r.GFN+r.Count) - out[last].GFN
		} else {
			out = append(out, r)
		}
	}
	return out
}

func pagesIn(runs []index.Run) (n uint64) {
	for _, r := range runs {
		n += r.Count
	}
	return n
}

var errAsked = errors.New("not a list of pages")

// parseAsked reads runs of pages.
func parseAsked(r io.Reader) (runs []index.Run, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		first, count, ok := strings.Cut(lines.Text(), " ")
		gfn, err1 := strconv.ParseUint(first, 10, 32)
		n, err2 := strconv.ParseUint(count, 10, 32)
		if !ok || err1 != nil || err2 != nil || n == 0 {
			return nil, fmt.Errorf("%w: %.40q", errAsked, lines.Text())
		}
		runs = append(runs, index.Run{GFN: gfn, Count: n})
	}
	return runs, lines.Err()
}
