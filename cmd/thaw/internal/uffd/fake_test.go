package uffd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
)

// A fakeVM is the memory of a VM as the kernel has it: pages that are there or missing, threads that wait for
// them, and messages that wait to be read. It answers like the kernel, with some of its answers at random.
type fakeVM struct {
	base uint64

	mu       sync.Mutex
	cond     sync.Cond
	rnd      *rand.Rand
	pages    [][]byte // nil: missing
	woken    []int    // how often those who wait for a page were woken
	messages []*fakeMessage
	changing int // memory is being given back
	closed   bool
}

type fakeMessage struct {
	text [messageSize]byte
	page int // that a thread waits for; -1: another message
	read bool
}

const fakeBase = 0x7f00_0000_0000

func newFakeVM(pages int, seed uint64) *fakeVM {
	v := &fakeVM{base: fakeBase, rnd: rand.New(rand.NewPCG(seed, 1)), pages: make([][]byte, pages),
		woken: make([]int, pages)}
	v.cond.L = &v.mu
	return v
}

func (v *fakeVM) layout() *layout {
	return &layout{regions: []region{{v.base, uint64(len(v.pages)) * smallPage, 0}}, pageSize: smallPage}
}

func (v *fakeVM) at(address uint64) int { return int((address - v.base) / smallPage) }

// dawdle lets others run, some times, where the kernel or this process may be interrupted.
func dawdle() {
	n := rand.IntN(4)
	if rand.IntN(8) == 0 {
		n = 30
	}
	for range n {
		runtime.Gosched()
	}
}

func (v *fakeVM) put(dst, n uint64, data func(i int) []byte) (done int, err error) {
	dawdle()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changing > 0 {
		return 0, unix.EAGAIN
	}
	first := v.at(dst)
	for i := range int(n / smallPage) {
		if v.pages[first+i] != nil {
			err = unix.EEXIST
		} else if i > 0 && v.rnd.IntN(8) == 0 {
			err = unix.EAGAIN // it stops in between
		}
		if err != nil && i > 0 {
			return i * smallPage, unix.EAGAIN
		} else if err != nil {
			return 0, err
		}
		v.pages[first+i] = bytes.Clone(data(i))
		v.wakeLocked(first+i, 1)
	}
	return int(n), nil
}

func (v *fakeVM) copy(dst uint64, src []byte) (int, error) {
	return v.put(dst, uint64(len(src)), func(i int) []byte { return src[i*smallPage:][:smallPage] })
}

func (v *fakeVM) zero(dst, n uint64) (int, error) {
	return v.put(dst, n, func(int) []byte { return zeroPage[:] })
}

func (v *fakeVM) wake(dst, n uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wakeLocked(v.at(dst), int(n/smallPage))
	return nil
}

// wakeLocked wakes who waits for pages, and takes back what they have said and nobody has read.
func (v *fakeVM) wakeLocked(first, n int) {
	for i := first; i < first+n; i++ {
		v.woken[i]++
	}
	var rest []*fakeMessage
	for _, m := range v.messages {
		if m.page < first || m.page >= first+n {
			rest = append(rest, m)
		}
	}
	v.messages = rest
	v.cond.Broadcast()
}

// read reads messages as read(2) does: faults before all others.
func (v *fakeVM) read(buf []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, faults := range []bool{true, false} {
		var rest []*fakeMessage
		for _, m := range v.messages {
			if (m.page >= 0) != faults || n == len(buf) {
				rest = append(rest, m)
				continue
			}
			n += copy(buf[n:], m.text[:])
			m.read = true
		}
		v.messages = rest
	}
	if n == 0 {
		return 0, unix.EAGAIN
	}
	v.cond.Broadcast()
	return n, nil
}

// serve reads messages for a pager until the VM is closed.
func (v *fakeVM) serve(p *pager) error {
	buf := make([]byte, messages*messageSize)
	for {
		v.mu.Lock()
		for len(v.messages) == 0 && !v.closed {
			v.cond.Wait()
		}
		closed := v.closed
		v.mu.Unlock()
		if closed {
			return nil
		}
		_, err := p.receive(buf, func(b []byte) (int, error) {
			defer dawdle()
			return v.read(b)
		})
		if err != nil {
			return err
		}
	}
}

func (v *fakeVM) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	v.cond.Broadcast()
}

// touch gives a page to a function, once it is there: as a thread that reads or writes memory.
func (v *fakeVM) touch(page int, use func([]byte)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.pages[page] == nil {
		m := &fakeMessage{page: page}
		m.text[0] = eventPagefault
		binary.LittleEndian.PutUint64(m.text[16:], v.base+uint64(page)*smallPage)
		v.messages = append(v.messages, m)
		v.cond.Broadcast()
		for before := v.woken[page]; v.woken[page] == before; {
			if v.closed {
				return errors.New("a thread waits for ever")
			}
			v.cond.Wait()
		}
	}
	use(v.pages[page])
	return nil
}

// remove gives memory back: the message, and when it was read, the pages. In between everything may happen.
func (v *fakeVM) remove(first, n int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.changing++
	m := &fakeMessage{page: -1}
	m.text[0] = eventRemove
	binary.LittleEndian.PutUint64(m.text[8:], v.base+uint64(first)*smallPage)
	binary.LittleEndian.PutUint64(m.text[16:], v.base+uint64(first+n)*smallPage)
	v.messages = append(v.messages, m)
	v.cond.Broadcast()
	for !m.read {
		if v.closed {
			return errors.New("a thread waits for ever")
		}
		v.cond.Wait()
	}
	v.changing--
	for range v.rnd.IntN(3) {
		v.mu.Unlock()
		runtime.Gosched()
		v.mu.Lock()
	}
	for i := first; i < first+n; i++ {
		v.pages[i] = nil
	}
	return nil
}

// A fakeSource is an image: each page that is not zeros has its number in each of its words.
type fakeSource struct {
	pages uint64
	bad   map[uint64]bool // cannot be read
	alone bool            // no page is near another
}

var errBad = errors.New("bad sector")

func (s *fakeSource) Pages() uint64 { return s.pages }

func (s *fakeSource) Zero(gfn uint64) bool { return gfn/8%3 == 0 && !s.alone }

func (s *fakeSource) fill(gfn uint64, dst []byte) error {
	if s.bad[gfn] {
		return fmt.Errorf("page %d: %w", gfn, errBad)
	}
	clear(dst)
	for i := 0; !s.Zero(gfn) && i < len(dst); i += 8 {
		binary.LittleEndian.PutUint64(dst[i:], gfn+1)
	}
	return nil
}

func (s *fakeSource) Read(first uint64, dst []byte) error {
	for i := 0; i < len(dst); i += index.PageSize {
		if err := s.fill(first+uint64(i/index.PageSize), dst[i:][:index.PageSize]); err != nil {
			return err
		}
	}
	return nil
}

func (s *fakeSource) Page(gfn uint64, b *Buffer) ([]byte, error) {
	b.gfn = gfn
	return b.page[:], s.fill(gfn, b.page[:])
}

// Beside and Near give the pages before and behind, backwards.
func (s *fakeSource) Beside(b *Buffer) []uint64 { return s.Near(b).GFNs }

func (s *fakeSource) Near(b *Buffer) *index.Piece {
	p := &b.piece
	p.GFNs, p.Pages = p.GFNs[:0], nil
	for gfn := min(b.gfn+5, s.pages-1); gfn+5 > b.gfn && gfn > 0 && !s.alone; gfn-- {
		page := make([]byte, index.PageSize)
		if s.fill(gfn, page) == nil {
			p.GFNs, p.Pages = append(p.GFNs, gfn), append(p.Pages, page...)
		}
	}
	return p
}

func (s *fakeSource) Set() Pieces { return fakePieces{s, s.pages / 2} }

func (s *fakeSource) SetRuns() []index.Run { return []index.Run{{GFN: 0, Count: s.pages / 2}} }

func (s *fakeSource) All() Pieces { return fakePieces{s, s.pages} }

func (s *fakeSource) Close() error { return nil }

// fakePieces are the first so many pages of an image, 16 a piece.
type fakePieces struct {
	s     *fakeSource
	pages uint64
}

func (p fakePieces) Len() int { return int(p.pages / 16) }

func (p fakePieces) Read(_ context.Context, i int, to *index.Piece) error {
	to.GFNs, to.Pages = nil, nil
	lost := &index.PagesError{Name: "fake", Err: errBad}
	for gfn := uint64(i) * 16; gfn < uint64(i+1)*16; gfn++ {
		page := make([]byte, index.PageSize)
		if p.s.fill(gfn, page) != nil {
			lost.GFNs = append(lost.GFNs, gfn)
			continue
		}
		to.GFNs, to.Pages = append(to.GFNs, gfn), append(to.Pages, page...)
	}
	if len(lost.GFNs) > 0 {
		return lost
	}
	return nil
}
