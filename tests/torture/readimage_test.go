package torture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/thawfs/thaw/index"
)

// condition of a store that is read.
type condition int

const (
	sound   condition = iota // nothing may fail
	damaged                  // a page may fail; the bytes that come are right all the same
)

// reading compares the bytes read of an image with the right ones.
type reading struct {
	m     *index.Image
	want  []byte
	state condition
	lost  int
}

// readWhole reads all of an image, and in some of the other ways that there are.
func readWhole(r *rand.Rand, m *index.Image, c *checkpoint, state condition) error {
	rd := &reading{m: m, want: c.bytes(), state: state}
	if m.Size() != int64(len(rd.want)) {
		return fmt.Errorf("%d bytes, want %d", m.Size(), len(rd.want))
	}
	err := errors.Join(rd.ranges(r), rd.set(c))
	for _, way := range []func() error{
		func() error { return rd.single(r) },
		func() error { return rd.blocks(r) },
		func() error { return rd.feed("eager", m.EagerFeed()) },
		func() error { return rd.feed("working set", m.WorkingSetFeed()) },
	} {
		if r.IntN(2) == 0 {
			err = errors.Join(err, way())
		}
	}
	return err
}

// failed says whether an error may be; it is an error of the test if not.
func (rd *reading) failed(way string, err error) error {
	if err == nil {
		return nil
	}
	if rd.state == damaged {
		rd.lost++
		return nil
	}
	return fmt.Errorf("%s: %w", way, err)
}

func (rd *reading) page(way string, gfn uint64, got []byte) error {
	if !bytes.Equal(got, rd.want[gfn*pageSize:][:pageSize]) {
		return fmt.Errorf("%s: page %d is wrong", way, gfn)
	}
	return nil
}

// ranges reads all in ranges of some length. What an error does not name must be right.
func (rd *reading) ranges(r *rand.Rand) error {
	n := int(rd.m.Pages())
	step := [...]int{2, 7, 64, 1 << 20}[r.IntN(4)]
	for at := 0; at < n; at += step {
		buf := bytes.Repeat([]byte{0xdb}, min(step, n-at)*pageSize)
		err := rd.m.ReadRange(uint64(at), buf)
		if ferr := rd.failed("range", err); ferr != nil {
			return ferr
		}
		var lost *index.PagesError
		if err != nil && !errors.As(err, &lost) {
			continue
		}
		bad := slices.DeleteFunc(wrong(buf, rd.want[at*pageSize:][:len(buf)]), func(i int) bool {
			return lost != nil && slices.Contains(lost.GFNs, uint64(at+i))
		})
		if len(bad) > 0 {
			return fmt.Errorf("range of %d from %d: %d pages are wrong: %s", step, at, len(bad), some(bad))
		}
	}
	return nil
}

// single reads some pages one by one, in no order.
func (rd *reading) single(r *rand.Rand) error {
	page := make([]byte, pageSize)
	for _, i := range r.Perm(int(rd.m.Pages()))[:min(300, rd.m.Pages())] {
		err := rd.m.ReadPage(uint64(i), page)
		if ferr := rd.failed("page", err); ferr != nil {
			return ferr
		}
		if err == nil {
			if err := rd.page("page", uint64(i), page); err != nil {
				return err
			}
		}
	}
	return nil
}

// feed reads a feed. Whatever pages come must be right.
func (rd *reading) feed(way string, f index.Feed) error {
	var p index.Piece
	for i := range f.Len() {
		err := index.ReadPiece(context.Background(), f, i, &p)
		if ferr := rd.failed(way, err); ferr != nil {
			return ferr
		}
		var lost *index.PagesError
		if err != nil && !errors.As(err, &lost) {
			continue
		}
		for k, gfn := range p.GFNs {
			if err := rd.page(way, gfn, p.Pages[k*pageSize:][:pageSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

// blocks reads the blocks of some pages.
func (rd *reading) blocks(r *rand.Rand) error {
	var p index.Piece
	for range 60 {
		b, ok := rd.m.Block(r.Uint64N(rd.m.Pages()))
		if !ok {
			continue
		}
		err := rd.m.ReadBlock(b, &p)
		if ferr := rd.failed("block", err); ferr != nil {
			return ferr
		}
		var lost *index.PagesError
		if err != nil && !errors.As(err, &lost) {
			continue
		}
		for k, gfn := range p.GFNs {
			if err := rd.page("block", gfn, p.Pages[k*pageSize:][:pageSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

// set compares the order of the working set.
func (rd *reading) set(c *checkpoint) error {
	got, want := gfns(rd.m.WorkingSet()), gfns(c.set)
	if len(got) != len(want) {
		return fmt.Errorf("a working set of %d pages, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("working set: %d-th page is %d, want %d", i, got[i], want[i])
		}
	}
	return nil
}
