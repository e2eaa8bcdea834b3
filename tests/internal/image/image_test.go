package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestImage: the proportions are what the package says, and the file is sparse.
func TestImage(t *testing.T) {
	s := Spec{Pages: 4096, Seed: 7}
	path := filepath.Join(t.TempDir(), "memory")
	if err := s.Write(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(data)) != s.Bytes() {
		t.Fatalf("%d bytes, want %d", len(data), s.Bytes())
	}
	seen, zero, twins := map[string]bool{}, 0, 0
	var text []byte
	page := make([]byte, PageSize)
	for gfn := range s.Pages {
		got := data[gfn*PageSize:][:PageSize]
		if s.Page(gfn, page); !bytes.Equal(got, page) {
			t.Fatalf("page %d is not what Page makes", gfn)
		}
		switch {
		case bytes.Count(got, []byte{0}) == PageSize:
			zero++
		case seen[string(got)]:
			twins++
		case s.Kind(gfn) == Text:
			text = append(text, got...)
		}
		seen[string(got)] = true
	}
	if zero < 1600 || zero > 2500 || twins < 50 {
		t.Errorf("%d zero pages and %d twins of %d", zero, twins, s.Pages)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if ratio := float64(len(text)) / float64(len(z.EncodeAll(text, nil))); ratio < 2 || ratio > 5 {
		t.Errorf("text compresses %.2f:1, want about 3:1", ratio)
	}
}
