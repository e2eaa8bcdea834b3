package index

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// testStream gives the pages of an image in random order and numbers, many of them twice: what comes first
// is then wrong. Pages of zeros come only where they replace others.
type testStream struct {
	r     *rand.Rand
	image []byte
	info  json.RawMessage

	once   bool  // nothing comes twice
	size   int64 // if not 0, instead of the true one
	beyond bool  // the last page is one that the size does not have
	fail   error // after half of it
	stop   func()
}

// part is some pages as they come.
type streamPart struct {
	gfn   uint64
	pages []byte
}

// parts cuts the image.
func (s *testStream) parts() (list []streamPart) {
	n := uint64(len(s.image) / PageSize)
	for gfn := uint64(0); gfn < n; {
		k := min(1+s.r.Uint64N(40), n-gfn)
		list = append(list, streamPart{gfn, s.image[gfn*PageSize : (gfn+k)*PageSize]})
		gfn += k
	}
	s.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	var out []streamPart
	for _, p := range list {
		twice := !s.once && s.r.IntN(3) == 0
		if twice {
			old := make([]byte, len(p.pages))
			fillPage(old[:PageSize], 1+s.r.Uint64N(1<<40))
			out = append(out, streamPart{p.gfn, old})
		}
		if twice || len(bytes.Trim(p.pages, "\x00")) > 0 {
			out = append(out, p)
		}
	}
	return out
}

func (s *testStream) Read(ctx context.Context, put func(uint64, []byte) error) (StreamEnd, error) {
	end := StreamEnd{Size: int64(len(s.image)), Info: s.info}
	if s.size != 0 {
		end.Size = s.size
	}
	list := s.parts()
	if s.beyond {
		list = append(list, streamPart{uint64(end.Size) / PageSize, make([]byte, PageSize)})
	}
	buf := make([]byte, 40*PageSize)
	for i, p := range list {
		if i == len(list)/2 {
			if s.stop != nil {
				s.stop()
			}
			if s.fail != nil {
				return end, s.fail
			}
		}
		n := copy(buf, p.pages)
		if err := put(p.gfn, buf[:n]); err != nil {
			return end, err
		}
		clear(buf) // the bytes are ours again
	}
	return end, ctx.Err()
}

// TestImportStream: what comes in any order, and pages that come again, are the image that was meant; what
// the store has already is not stored again.
func TestImportStream(t *testing.T) {
	r := newRand(t)
	for range fewer(30, 6) {
		dir := t.TempDir()
		s := openTest(t, dir, nil)
		s.limits = limits{packPages: 200, freshPages: 150}
		images := map[string]testImage{"a": randomImage(r, 1+r.IntN(3000))}
		images["b"] = images["a"].change(r, 5)
		for _, name := range []string{"a", "b"} {
			src := Source{Memory: "stream", Stream: &testStream{r: r, image: images[name].bytes(),
				info: json.RawMessage(`{"vmm":"x"}`)}}
			c, st, err := s.Import(t.Context(), src, ImportOptions{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			if string(c.Guest) != `{"vmm":"x"}` || st.MemoryBytes != c.MemoryBytes ||
				c.DataPages+c.ZeroPages != uint64(len(images[name])) {
				t.Errorf("%+v, %+v", c, st)
			}
		}
		_, st := mustImport(t, s, "same", Source{Memory: "rig", Image: rigMemory{images["b"].bytes()}}, nil)
		if st.NewPages != 0 || st.NewLeaves != 0 {
			t.Errorf("the same image from a file: %d new pages, %d new leaves", st.NewPages, st.NewLeaves)
		}
		s.Close()
		s = openTest(t, dir, nil)
		if _, err := s.GC(t.Context(), GCOptions{}); err != nil {
			t.Fatal(err)
		}
		for name, want := range images {
			m := openImage(t, s, name)
			sameImage(t, m, want.bytes())
			m.Close()
		}
		s.Close()
	}
}

// TestImportStreamLikeAnother: a stream of a machine that was imported before costs its changed pages and
// their leaves; the others are shared, and a leaf with few changes is stored as the difference.
func TestImportStreamLikeAnother(t *testing.T) {
	r := newRand(t)
	s := openTest(t, t.TempDir(), nil)
	image := uniqueImage(20 * LeafPages)
	src := func() Source {
		return Source{Memory: "stream", Stream: &testStream{r: r, image: image.bytes(), once: true}}
	}
	if _, st := mustImport(t, s, "a", src(), nil); st.NewLeaves != 20 || st.SharedLeaves != 0 {
		t.Errorf("%+v", st)
	}
	image[5*LeafPages+7] = 1 << 60
	c, st := mustImport(t, s, "b", src(), nil)
	if c.Parent != "a" || st.NewLeaves != 1 || st.SharedLeaves != 19 {
		t.Errorf("parent %q, %+v", c.Parent, st)
	}
	_, full := mustImport(t, s, "c", src(), nil)
	if full.NewLeaves != 0 || full.SharedLeaves != 20 {
		t.Errorf("the same again: %+v", full)
	}
	if st.StoredBytes > full.StoredBytes+PageSize {
		t.Errorf("one changed page took %d bytes, none %d", st.StoredBytes, full.StoredBytes)
	}
}

// TestImportStreamFails: nothing stays of a stream that fails, ends too early, is cancelled or lies.
func TestImportStreamFails(t *testing.T) {
	r := newRand(t)
	s := openTest(t, t.TempDir(), nil)
	s.limits = limits{packPages: 100, freshPages: 150}
	image := uniqueImage(3000).bytes()
	mine := errors.New("mine")
	for name, c := range map[string]struct {
		stream testStream
		change func(*Source, *ImportOptions)
		is     error
		words  string
	}{
		"fails":      {stream: testStream{fail: mine}, is: mine},
		"cancelled":  {is: context.Canceled},
		"empty":      {stream: testStream{size: -1}, words: "empty"},
		"odd":        {stream: testStream{size: int64(len(image)) + 1}, words: "multiple"},
		"too small":  {stream: testStream{size: PageSize}, words: "beyond its own end"},
		"beyond":     {stream: testStream{beyond: true}, words: "beyond its own end"},
		"16 TiB":     {stream: testStream{size: maxPages * PageSize, beyond: true}, words: "16 TiB"},
		"set":        {change: func(_ *Source, o *ImportOptions) { o.WorkingSet = []Run{{0, 1}} }, words: "set"},
		"order":      {change: func(_ *Source, o *ImportOptions) { o.Order = []Group{{}} }, words: "order"},
		"info":       {change: func(s *Source, _ *ImportOptions) { s.Info = json.RawMessage("{}") }, words: "info"},
		"image also": {change: func(s *Source, _ *ImportOptions) { s.Image = rigMemory{image} }, words: "image"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		stream := c.stream
		stream.r, stream.image = r, image
		if c.is == context.Canceled {
			stream.stop = cancel
		}
		src, o := Source{Memory: "stream", Stream: &stream}, ImportOptions{Name: "a"}
		if c.change != nil {
			c.change(&src, &o)
		}
		_, _, err := s.Import(ctx, src, o)
		cancel()
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
		if left := blobFiles(t, s.Dir()); len(left) != 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
}
