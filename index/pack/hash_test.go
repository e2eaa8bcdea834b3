package pack

import (
	"crypto/sha256"
	"testing"

	"github.com/zeebo/blake3"
)

func TestHasher(t *testing.T) {
	page := make([]byte, PageSize)
	a, b := NewHasher(HashKey{1}), NewHasher(HashKey{2})
	first := a.Sum(page)
	if a.Sum([]byte("other")) == first || b.Sum(page) == first {
		t.Error("different content or key, same hash")
	}
	if a.Sum(page) != first || NewHasher(HashKey{1}).Sum(page) != first {
		t.Error("same content and key, different hash")
	}
	// The hash is part of the format.
	want := sha256.Sum256(append([]byte{0: 1, 63: 0}, page...))
	if first != Hash(want[:HashSize]) {
		t.Error("not the first 16 bytes of SHA-256 over key block and content")
	}
	if n := testing.AllocsPerRun(100, func() { a.Sum(page) }); n != 0 {
		t.Errorf("Sum allocates %v times", n)
	}
}

// BenchmarkHash compares what could hash pages.
func BenchmarkHash(b *testing.B) {
	page := make([]byte, PageSize)
	b.Run("sha256-prefix-key", func(b *testing.B) {
		b.SetBytes(PageSize)
		h := NewHasher(HashKey{1})
		for b.Loop() {
			h.Sum(page)
		}
	})
	b.Run("blake3-keyed", func(b *testing.B) {
		b.SetBytes(PageSize)
		h, err := blake3.NewKeyed(make([]byte, 32))
		if err != nil {
			b.Fatal(err)
		}
		sum := make([]byte, 0, 32)
		for b.Loop() {
			h.Reset()
			_, _ = h.Write(page)
			sum = h.Sum(sum[:0])
		}
	})
}
