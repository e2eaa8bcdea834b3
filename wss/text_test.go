package wss

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const sample = `thaw-working-set 1
pages 262144
window 10s
way read trace of a lazy restore, 4 KiB
created 2026-11-22T12:00:00.5Z
host a future field

1024 16 0 read
3 1 120 read 0
4096 2 98000 trace 3
`

func TestParse(t *testing.T) {
	got, err := Parse(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := &Set{
		ImagePages: 262_144, Window: 10 * time.Second,
		Way:     "read trace of a lazy restore, 4 KiB",
		Created: time.Date(2026, 11, 22, 12, 0, 0, 500_000_000, time.UTC),
		Extra:   []Field{{"host", "a future field"}},
		Runs: []Run{
			{1024, 16, 0, SourceRead, NoVCPU},
			{3, 1, 120 * time.Microsecond, SourceRead, 0},
			{4096, 2, 98 * time.Millisecond, SourceTrace, 3},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var out bytes.Buffer
	n, err := got.WriteTo(&out)
	if err != nil || n != int64(out.Len()) {
		t.Errorf("WriteTo = %d %v, wrote %d", n, err, out.Len())
	}
	if out.String() !=
		sample {
		t.Error(cmp.Diff(sample, out.String()))
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "thaw-working-set 1\npages 100\n\n"
	long := strings.Repeat("x", maxLine+1)
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "line 1: empty"},
		{"something else", "GIF89a\n", "not a working set"},
		{"a newer version", "thaw-working-set 2\n", "this thaw reads version 1"},
		{"header only", "thaw-working-set 1\npages 100\n", "blank line"},
		{"no pages", "thaw-working-set 1\nway x\n\n", `lacks "pages"`},
		{"pages 0", "thaw-working-set 1\npages 0\n\n", "pages"},
		{"pages beyond the limit", "thaw-working-set 1\npages 1099511627777\n\n", "pages"},
		{"pages twice", "thaw-working-set 1\npages 1\npages 2\n\n", "second"},
		{"bad window", "thaw-working-set 1\nwindow 10\n\n", "window"},
		{"negative window", "thaw-working-set 1\nwindow -10s\n\n", "window"},
		{"bad date", "thaw-working-set 1\ncreated today\n\n", "created"},
		{"control byte", "thaw-working-set 1\nway a\x1b[2Jb\n\n", "control"},
		{"long line", "thaw-working-set 1\nway " + long + "\n", "longer"},
		{"endless line", "thaw-working-set 1\nway " + strings.Repeat(long, 10), "longer"},
		{"many header lines", "thaw-working-set 1\n" + headerLines(100) + "\n", "header lines"},
		{"cut off", head + "1 2 3 read", "line 4: cut off"},
		{"blank line in the body", head + "\n", "gfn"},
		{"words", head + "a b c d\n", "gfn"},
		{"sign", head + "+1 1 0 read\n", "gfn"},
		{"leading zero", head + "01 1 0 read\n", "gfn"},
		{"hex", head + "0x10 1 0 read\n", "gfn"},
		{"two spaces", head + "1  1 0 read\n", "count"},
		{"too large for 64 bits", head + "99999999999999999999 1 0 read\n", "gfn"},
		{"count 0", head + "1 0 0 read\n", "no pages"},
		{"beyond the image", head + "99 2 0 read\n", "beyond"},
		{"time", head + "1 1 999999999999999999 read\n", "microseconds"},
		{"no source", head + "1 1 0\n", "source"},
		{"bad source", head + "1 1 0 Read!\n", "source"},
		{"vCPU", head + "1 1 0 read x\n", "vCPU"},
		{"vCPU beyond", head + "1 1 0 read 65536\n", "vCPU"},
		{"a page twice", head + "1 5 0 read\n3 1 0 read\n", "twice"},
		{"many sources", head + sourceLines(70), "sources"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(strings.NewReader(c.text))
			if !errors.Is(err, ErrBadSet) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q that matches ErrBadSet", err, c.want)
			}
		})
	}
}

func headerLines(n int) (text string) {
	for i := range n {
		text += fmt.Sprintf("key%d x\n", i)
	}
	return text
}

func sourceLines(n int) (text string) {
	for i := range n {
		text += fmt.Sprintf("%d 1 0 source-%d\n", i, i)
	}
	return text
}

func TestParseTakes(t *testing.T) {
	const head = "thaw-working-set 1\npages 100\n\n"
	for name, text := range map[string]string{
		"no runs":              head,
		"fields to come":       head + "1 1 0 read 0 rank=3\n",
		"vCPU not known":       head + "1 1 0 read -\n",
		"a source of tomorrow": head + "1 1 0 page-idle2 1\n",
	} {
		if _, err := Parse(strings.NewReader(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseReaderError(t *testing.T) {
	broken := errors.New("disk on fire")
	r := io.MultiReader(strings.NewReader(sample), iotest.ErrReader(broken))
	if _, err := Parse(r); !errors.Is(err, broken) || errors.Is(err, ErrBadSet) {
		t.Errorf("error %v", err)
	}
}

// endless repeats a text for ever.
type endless struct{ left, text string }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == "" {
		e.left = e.text
	}
	n := copy(p, e.left)
	e.left = e.left[n:]
	return n, nil
}

func TestParseIsBounded(t *testing.T) {
	head := fmt.Sprintf("thaw-working-set 1\npages %d\n\n", uint64(MaxImagePages))
	for name, text := range map[string]string{
		"runs":     strings.Repeat("7 1099511627769 0 read\n", 1000),
		"no lines": "7",
	} {
		r := io.MultiReader(strings.NewReader(head), &endless{text: text})
		if _, err := Parse(r); !errors.Is(err, ErrBadSet) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("thaw-working-set 1\npages 1\n\n0 1 0 read\n"))
	f.Add([]byte("thaw-working-set 1\npages 100\nwindow 1h2m\n\n5 3 1 a-b 65535 more\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, ErrBadSet) {
				t.Fatalf("error %v does not match ErrBadSet", err)
			}
			return
		}
		if err := s.Validate(s.ImagePages); err != nil {
			t.Fatal("parsed, but not valid:", err)
		}
		if s.Pages() > s.ImagePages {
			t.Fatal("more pages than the image has")
		}
		var out bytes.Buffer
		if _, err := s.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(&out)
		if err != nil {
			t.Fatal("cannot read what was written:", err)
		}
		if d := cmp.Diff(s, again, cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(0)); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	s := &Set{ImagePages: 1 << 20, Window: time.Second}
	for i := range uint64(10_000) {
		s.Runs = append(s.Runs, Run{GFN: i * 100, Count: 3, Source: SourceTrace, VCPU: 1})
	}
	var text bytes.Buffer
	s.WriteTo(&text)
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(bytes.NewReader(text.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}
