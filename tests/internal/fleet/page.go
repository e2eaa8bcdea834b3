package fleet

import (
	"encoding/binary"
	"fmt"
	"os"
)

// kind is what a page is.
type kind uint8

const (
	kindZero    kind = iota // never used
	kindText                // of the kernel
	kindFile                // page cache
	kindKernel              // objects of the kernel
	kindProgram             // memory of a program
	kindStale               // memory of a program that was given back, and not used since
)

// page fills dst with a page.
func (m *Machine) page(open map[string]*os.File, f frame, dst []byte) error {
	own := newNumbers(m.fleet.spec.Seed, m.number, uint64(f.object), uint64(f.kind)&^1)
	switch f.kind {
	case kindText:
		if err := m.fleet.kernel.read(open, f.page%m.fleet.kernel.pages(), dst); err != nil {
			return err
		}
		if n := newNumbers(m.fleet.spec.Seed, uint64(f.page)); n.percent(33) {
			relocate(dst, n, m.slide())
		}
		return nil
	case kindFile:
		return m.fleet.files[f.object].read(open, f.page, dst)
	case kindKernel:
		structures(dst, own, 0xffff888000000000, 256)
	default:
		if err := m.program(open, own, f, dst); err != nil {
			return err
		}
	}
	for v := range f.version {
		patch(dst, newNumbers(m.fleet.spec.Seed, m.number, uint64(f.object), uint64(v), 3))
	}
	return nil
}

// slide is how far the machine's kernel is relocated.
func (m *Machine) slide() uint64 { return (1 + mix(m.fleet.spec.Seed^m.number)%512) << 21 }

// program fills dst with memory of a program.
func (m *Machine) program(open map[string]*os.File, own *numbers, f frame, dst []byte) error {
	switch k := f.object % 12; {
	case k < 4:
		text(dst, own)
	case k < 8:
		structures(dst, own, 0x7f0000000000|own.below(1<<28)<<12, 64)
	case k < 10:
		clear(dst)
		for range 8 {
			binary.LittleEndian.PutUint64(dst[own.below(512)*8:], own.next()&0xffff)
		}
		binary.LittleEndian.PutUint64(dst, uint64(f.object)<<32|m.number<<8|1)
	case k < 11:
		for i := 0; i < PageSize; i += 8 {
			binary.LittleEndian.PutUint64(dst[i:], own.next())
		}
	default:
		files := m.fleet.files
		a := files[own.below(uint64(len(files)))]
		if err := a.read(open, uint32(own.below(uint64(a.pages()))), dst); err != nil {
			return err
		}
		relocate(dst, own, own.next()&0x7ffffffff000)
	}
	return nil
}

// relocate changes some words as a loader does.
func relocate(dst []byte, n *numbers, slide uint64) {
	for range 1 + n.below(12) {
		w := dst[n.below(512)*8:]
		binary.LittleEndian.PutUint64(w, binary.LittleEndian.Uint64(w)+slide)
	}
}

// structures are an array of objects: a few addresses near base, flags, small numbers, zeros.
func structures(dst []byte, n *numbers, base uint64, size int) {
	clear(dst)
	class := base + n.below(64)<<6 // all of a page belong to one
	for o := 0; o < PageSize; o += size {
		put := func(word int, v uint64) { binary.LittleEndian.PutUint64(dst[o+word*8:], v) }
		if n.percent(10) {
			continue // free
		}
		put(0, class)
		put(1, base+n.below(1<<24)<<6)
		put(2, base+n.below(1<<24)<<6)
		put(3, 1+n.below(8))
		put(4, n.below(1<<32))
		put(5, n.below(256)<<48|n.below(256))
		if size > 64 {
			put(9, base+n.below(1<<24)<<6)
			put(12, n.next()>>30)
			put(20, n.below(3))
		}
	}
}

// words are what text is made of.
var words = func() (w [256]string) {
	n := newNumbers(7)
	for i := range w {
		b := make([]byte, 2+n.below(9))
		for j := range b {
			b[j] = "etaoinshrdlucmfwypvbgk_.0123456789"[n.below(34)]
		}
		w[i] = string(b)
	}
	return w
}()

// text is what logs, documents and tables in memory look like: words, most of them common, and numbers.
func text(dst []byte, n *numbers) {
	for at := 0; at < PageSize; {
		r := n.next()
		i := r & 255
		if r>>8&3 != 0 {
			i &= 31
		}
		at += copy(dst[at:], words[i])
		if r>>10&7 == 0 {
			at += copy(dst[at:], fmt.Sprintf("=%d;", r>>40))
		}
		at += copy(dst[at:], " ")
	}
}

// patch changes a few words of a page: counters, links, a buffer.
func patch(dst []byte, n *numbers) {
	for range 1 + n.below(8) {
		w := dst[n.below(512)*8:]
		binary.LittleEndian.PutUint64(w, binary.LittleEndian.Uint64(w)+1+n.below(1<<16))
	}
	if n.percent(25) {
		at := n.below(PageSize - 256)
		for i := uint64(0); i < 256; i += 8 {
			binary.LittleEndian.PutUint64(dst[at+i:], n.next()&0xffffff)
		}
	}
}
