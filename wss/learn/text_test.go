package learn

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss"
)

// trialText is a record with scores, a trial and a history.
func trialText(t testing.TB) []byte {
	g := &guest{pages: 4096, core: clusters(rand.New(rand.NewPCG(1, 1)), 300, 2000), random: 20}
	l := &life{t: t, rng: rand.New(rand.NewPCG(2, 2)), g: g, r: New(g.pages), set: setOf(g.pages, g.core[:200]),
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for l.r.Trial == nil || l.r.Trial.Old.Restores == 0 {
		l.restore("")
	}
	text, err := l.r.Text()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What no restores lead to is refused.
func TestParseRefuses(t *testing.T) {
	good := string(trialText(t))
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(good, "\n")
	head, pages, _ := strings.Cut(rest, "\n")
	for name, text := range map[string]string{
		"nothing":        "",
		"another":        "thaw-working-set 1\n",
		"version 2":      strings.Replace(good, "thaw-learned 1", "thaw-learned 2", 1),
		"cut off":        good[:len(good)-1],
		"no image":       strings.Replace(good, `"image_pages":4096`, `"image_pages":0`, 1),
		"a huge image":   strings.Replace(good, `"image_pages":4096`, `"image_pages":9999999999`, 1),
		"a small image":  strings.Replace(good, `"image_pages":4096`, `"image_pages":40`, 1),
		"a larger set":   strings.Replace(good, `"base_pages":200`, `"base_pages":2000`, 1),
		"proved at once": strings.Replace(good, `"old":{`, `"proved":true,"old":{`, 1),
		"beyond":         good + "p 4096 64 1\n",
		"twice":          good + "p 1 64 1\np 1 64 1\n",
		"a high score":   good + "p 4000 200 1\n",
		"a wrong order":  good + "a 0 1\n",
		"no line":        good + "x 1 1\n",
		"no number":      good + "p one 1 1\n",
		"too few":        good + "p\n",
		"no header":      magic + "\n" + pages,
		"no candidate":   magic + "\n" + strings.Replace(head, `"trial":{`, `"other":{`, 1) + "\n" + pages,
	} {
		if r, err := Parse([]byte(text)); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if _, err := Parse(make([]byte, MaxText+1)); !errors.Is(err, ErrBadRecord) {
		t.Errorf("too long: %v", err)
	}
}

// The history is bounded, and so is the text, whatever is missed.
func TestBounds(t *testing.T) {
	r := New(MaxImagePages)
	missed := &wss.Set{ImagePages: MaxImagePages, Runs: []wss.Run{
		{GFN: 7, Count: 3 * maxScored, Source: wss.SourceRead, VCPU: wss.NoVCPU}}}
	for range maxHistory + 10 {
		id := r.Meet(nil, time.Unix(1e9, 0))
		r.Begin()
		x := Restore{At: time.Unix(1e9, 0), Base: id, Why: "it was cut short"}
		if r.Restores < 2 {
			x = Restore{At: x.At, Base: id, Touched: missed, Brought: func(uint64) bool { return false }}
		}
		r.Take(x)
	}
	text, err := r.Text()
	if err != nil || len(r.History) != maxHistory || len(r.pages) > maxScored || len(text) > MaxText/2 {
		t.Errorf("%d lines, %d pages, %d bytes: %v", len(r.History), len(r.pages), len(text), err)
	}
	if _, err := Parse(text); err != nil {
		t.Error(err)
	}
}

// FuzzParse: a text of any bytes is refused, or is a record that can be used and written.
func FuzzParse(f *testing.F) {
	f.Add(trialText(f))
	f.Add([]byte(magic + "\n{\"image_pages\":64,\"history\":[]}\np 3 64 5\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrBadRecord) {
				t.Fatal(err)
			}
			return
		}
		again, err := r.Text()
		if err != nil {
			t.Fatal(err)
		}
		if r, err = Parse(again); err != nil {
			t.Fatalf("%v\n%.400s", err, again)
		}
		if third, err := r.Text(); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("%v\n%.400s\n%.400s", err, again, third)
		}
		if r.ImagePages > 1<<20 {
			return
		}
		r.Quality()
		_, _ = r.Set(nil)
		pages := []Span{{0, (r.ImagePages + 1) / 2}}
		r.Meet(pages, time.Unix(1e9, 0))
		p := r.Begin()
		x := Restore{At: time.Unix(1e9, 0), Base: r.Base, Candidate: p.Candidate, Pages: pages[0].Count,
			Touched: setOf(r.ImagePages, []uint64{0, r.ImagePages - 1}[:min(2, r.ImagePages)]),
			Brought: func(gfn uint64) bool { return gfn < pages[0].Count }}
		x.Sample, x.Checks = r.Hold(pages, rand.New(rand.NewPCG(1, 1)))
		r.Take(x)
	})
}
