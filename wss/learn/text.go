package learn

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thawfs/thaw/wss"
)

const magic = "thaw-learned 1"

// MaxText bounds the text of a record, in bytes.
const MaxText = 16 << 20

// maxDecision bounds the words of a line of the history, in bytes.
const maxDecision = 400

// ErrBadRecord matches every error about a text that is no record.
var ErrBadRecord = errors.New("not a record of what restores have taught")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadRecord, fmt.Sprintf(format, args...))
}

// Text is the record as text, which Parse reads.
func (r *Record) Text() ([]byte, error) {
	head, err := json.Marshal(r.header)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%s\n", magic, head)
	for _, p := range r.add {
		fmt.Fprintf(&b, "a %d %d\n", p.GFN, p.At.Microseconds())
	}
	for _, gfn := range r.drop {
		fmt.Fprintf(&b, "d %d\n", gfn)
	}
	for _, gfn := range slices.Sorted(maps.Keys(r.pages)) {
		p := r.pages[gfn]
		fmt.Fprintf(&b, "p %d %d %d\n", gfn, p.value, p.at.Microseconds())
	}
	if b.Len() > MaxText {
		return nil, fmt.Errorf("a record of %d bytes, at most %d can be", b.Len(), MaxText)
	}
	return b.Bytes(), nil
}

// Parse reads what Text has written. Its errors match ErrBadRecord.
func Parse(text []byte) (*Record, error) {
	if len(text) > MaxText {
		return nil, bad("%d bytes, at most %d can be", len(text), MaxText)
	}
	if len(text) == 0 || text[len(text)-1] != '\n' {
		return nil, bad("it is cut off")
	}
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	if string(first) != magic {
		return nil, bad("it begins with %.40q", first)
	}
	head, rest, _ := bytes.Cut(rest, []byte("\n"))
	r := New(0)
	if err := json.Unmarshal(head, &r.header); err != nil {
		return nil, bad("%v", err)
	}
	if err := r.header.check(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(rest))
	for lines.Scan() {
		if err := r.line(lines.Text()); err != nil {
			return nil, err
		}
	}
	if err := lines.Err(); err != nil {
		return nil, bad("%v", err)
	}
	return r, r.checkPages()
}

// line reads a page.
func (r *Record) line(text string) error {
	words := strings.Split(text, " ")
	numbers := make([]uint64, len(words)-1)
	for i, w := range words[1:] {
		n, err := strconv.ParseUint(w, 10, 64)
		if err != nil || n > uint64(wss.MaxTime.Microseconds()) {
			return bad("%.60q", text)
		}
		numbers[i] = n
	}
	if len(numbers) == 0 || numbers[0] >= r.ImagePages {
		return bad("%.60q", text)
	}
	gfn := numbers[0]
	switch {
	case words[0] == "a" && len(numbers) == 2:
		r.add = append(r.add, Page{gfn, time.Duration(numbers[1]) * time.Microsecond})
	case words[0] == "d" && len(numbers) == 1:
		r.drop = append(r.drop, gfn)
	case words[0] == "p" && len(numbers) == 3 && numbers[1] <= maxScore:
		if _, twice := r.pages[gfn]; twice {
			return bad("page %d twice", gfn)
		}
		r.pages[gfn] = score{uint8(numbers[1]), time.Duration(numbers[2]) * time.Microsecond}
	default:
		return bad("%.60q", text)
	}
	return nil
}

func (h *header) check() error {
	const most = 1 << 40
	switch {
	case h.ImagePages == 0 || h.ImagePages > MaxImagePages:
		return bad("an image of %d pages", h.ImagePages)
	case h.BasePages > h.ImagePages || h.Estimated > h.ImagePages:
		return bad("a set of %d or %d pages, of an image of %d", h.BasePages, h.Estimated, h.ImagePages)
	case len(h.Base) > 200 || h.Restores > most || h.Serial > most:
		return bad("numbers that cannot be")
	case h.Wait < 0 || h.Wait > maxWait || h.Backoff < 0 || h.Backoff > maxWait:
		return bad("a pause of %d restores, %d before", h.Wait, h.Backoff)
	case len(h.History) > maxHistory:
		return bad("a history of %d lines, at most %d can be", len(h.History), maxHistory)
	}
	for _, e := range h.History {
		if err := e.check(h); err != nil {
			return err
		}
	}
	return h.Trial.check(h)
}

func (e *Entry) check(h *header) error {
	sums := max(e.Pages, e.HeldOut, e.Used, e.Checked, e.CheckedUsed, e.Late, e.Missed)
	switch {
	case sums > h.ImagePages || e.Used > e.HeldOut || e.CheckedUsed > e.Checked || e.Restore > h.Restores:
		return bad("restore %d: numbers that cannot be", e.Restore)
	case e.Set != SetOld && e.Set != SetCandidate:
		return bad("restore %d brought %.40q", e.Restore, e.Set)
	case len(e.Decision) > maxDecision || strings.ContainsFunc(e.Decision, control):
		return bad("restore %d: a decision in bad words", e.Restore)
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

func (t *Trial) check(h *header) error {
	if t == nil {
		return nil
	}
	for _, s := range []Side{t.Old, t.New} {
		if s.Restores < 0 || s.Begun < s.Restores || s.Begun > 1<<30 ||
			s.Bad > uint64(s.Restores)*h.ImagePages {
			return bad("a trial with %v", s)
		}
	}
	y := t.Made.Year()
	if t.Serial == 0 || t.Serial != h.Serial || t.Pages > h.ImagePages || y < 1970 || y > 9999 ||
		t.Proved && (t.Old.Restores < TrialRestores || t.New.Restores < TrialRestores || !t.better(h.BasePages)) {
		return bad("a trial that cannot be")
	}
	return nil
}

// checkPages tests what has to be right of the pages together.
func (r *Record) checkPages() error {
	ascending := slices.IsSortedFunc(r.add, func(a, b Page) int { return cmp.Compare(a.GFN, b.GFN) }) &&
		slices.IsSorted(r.drop)
	for i := 1; i < len(r.add) && ascending; i++ {
		ascending = r.add[i-1].GFN < r.add[i].GFN
	}
	for i := 1; i < len(r.drop) && ascending; i++ {
		ascending = r.drop[i-1] < r.drop[i]
	}
	switch {
	case !ascending:
		return bad("the pages of a candidate are not in order")
	case len(r.add) > maxScored || len(r.drop) > maxScored || len(r.pages) > 2*maxScored:
		return bad("%d, %d and %d pages", len(r.add), len(r.drop), len(r.pages))
	case r.Trial == nil && len(r.add)+len(r.drop) > 0:
		return bad("pages of a candidate that there is not")
	case r.Trial != nil && (uint64(len(r.drop)) > r.BasePages ||
		r.BasePages+uint64(len(r.add))-uint64(len(r.drop)) != r.Trial.Pages || r.Trial.Pages > r.Bound()):
		return bad("a candidate of %d pages", r.Trial.Pages)
	}
	return nil
}
