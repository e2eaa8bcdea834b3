// Package image makes memory images for tests: deterministic, and in the proportions of a real
// guest — about half zero pages, machine data that compresses about 3:1, some pages that do not
// compress, some that occur twice. Every page that is not zero begins with its own number, so that
// a page served in another's place is wrong in its first bytes.
package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
)

// PageSize of guest memory in bytes.
const PageSize = 4096

// Kind of a page.
type Kind int

// The kinds.
const (
	Zero  Kind = iota
	Text       // compresses about 3:1
	Noise      // does not compress
	Twin       // the same bytes as another page: its first bytes are the twin's number
)

// Spec describes an image.
type Spec struct {
	Pages uint64
	Seed  uint64
	Full  bool // no zero pages and no twins
}

// Bytes of the image.
func (s Spec) Bytes() int64 { return int64(s.Pages) * PageSize }

// mix is SplitMix64: a well-spread hash of a number.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Kind of page gfn. Zero pages come in runs of 64, as free memory does.
func (s Spec) Kind(gfn uint64) Kind {
	if s.Full {
		if mix(s.Seed^gfn)%10 == 0 {
			return Noise
		}
		return Text
	}
	if mix(s.Seed+gfn/64)%2 == 0 {
		return Zero
	}
	switch h := mix(s.Seed^gfn) % 100; {
	case h < 10:
		return Noise
	case h < 20 && gfn > 0:
		return Twin
	}
	return Text
}

// words are what text pages are made of.
var words = [...]string{"struct ", "return ", "0x00000000", "page_", "offset ", "\x00\x00\x00\x00",
	"if (", ");\n", "inode ", "\xff\xff\xff\xff\x00\x00", "the ", "memory "}

// Page fills dst, of PageSize bytes, with page gfn.
func (s Spec) Page(gfn uint64, dst []byte) {
	kind := s.Kind(gfn)
	for kind == Twin {
		gfn /= 2
		if kind = s.Kind(gfn); kind == Zero || gfn == 0 {
			kind = Text // the original of these twins is not in the image, or is its page 0
		}
	}
	clear(dst)
	if kind == Zero {
		return
	}
	binary.LittleEndian.PutUint64(dst, gfn^s.Seed<<32|1<<63)
	r := rand.New(rand.NewPCG(s.Seed, gfn))
	if kind == Noise {
		for i := 8; i < PageSize; i += 8 {
			binary.LittleEndian.PutUint64(dst[i:], r.Uint64())
		}
		return
	}
	for at := 8; at < PageSize; {
		n := copy(dst[at:], words[r.IntN(len(words))])
		at += n
		if at+8 <= PageSize && r.IntN(3) == 0 {
			binary.LittleEndian.PutUint64(dst[at:], r.Uint64()&0xffffff)
			at += 8
		}
	}
}

// Write writes the image as a sparse file.
func (s Spec) Write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(s.writeTo(f), f.Close())
}

func (s Spec) writeTo(f *os.File) error {
	buf := make([]byte, PageSize)
	for gfn := range s.Pages {
		if s.Kind(gfn) == Zero {
			continue
		}
		s.Page(gfn, buf)
		if _, err := f.WriteAt(buf, int64(gfn)*PageSize); err != nil {
			return fmt.Errorf("page %d: %w", gfn, err)
		}
	}
	return f.Truncate(s.Bytes())
}
