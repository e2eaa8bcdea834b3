package uffd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
)

// A pager installs the pages of one VM.
type pager struct {
	src   Source
	mem   *memory
	uffd  *os.File
	queue *queue
	near  *neighbourhood
	log   *slog.Logger
	count counters
	begun time.Time // when the VM had handed over its memory

	// end ends the goroutines. Whoever finds that the VM cannot be served gives the reason.
	ctx  context.Context
	end  context.CancelCauseFunc
	fail chan error
	work sync.WaitGroup
}

// A LostError says that a page could not be given to a VM that waits for it.
type LostError struct {
	GFN uint64
	Err error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("page %d cannot be given to the VM: %v", e.GFN, e.Err)
}
func (e *LostError) Unwrap() error { return e.Err }

func newPager(ctx context.Context, src Source, mem *memory, log *slog.Logger) *pager {
	p := &pager{
		src: src, mem: mem, queue: newQueue(), near: newNeighbourhood(), log: log, begun: time.Now(),
		fail: make(chan error, 1),
	}
	p.ctx, p.end = context.WithCancelCause(ctx)
	return p
}

// perUnit is how many pages of the image a unit has.
func (p *pager) perUnit() uint64 { return p.mem.pageSize / index.PageSize }

// workers is how many faults are answered at once: more than processors, since some wait for the disk.
func workers() int { return max(8, 2*runtime.GOMAXPROCS(0)) }

// listen takes the descriptor, which is in non-blocking mode, and begins to read messages. From now on
// the VM may give memory back, and nothing that is installed waits for that in vain.
func (p *pager) listen(uffd *os.File) error {
	p.uffd = uffd
	raw, err := uffd.SyscallConn()
	if err != nil {
		return fmt.Errorf("userfaultfd: %w", err)
	}
	p.work.Go(func() {
		if err := p.read(raw.Read); err != nil {
			p.failed(err)
			p.end(err) // what waits for a message to be read would do so for ever
		}
	})
	return nil
}

// start begins to answer.
func (p *pager) start() {
	for range workers() {
		p.work.Go(p.answer)
	}
}

// stop ends and joins all goroutines, and closes the descriptor. What was being installed is.
func (p *pager) stop() error {
	p.end(nil)
	p.queue.close()
	err := p.uffd.SetReadDeadline(time.Unix(1, 0))
	p.work.Wait()
	return errors.Join(err, p.uffd.Close())
}

// failed ends the VM for a reason, unless it has ended.
func (p *pager) failed(err error) {
	if err == nil || errors.Is(err, errGone) || p.ctx.Err() != nil {
		return
	}
	select {
	case p.fail <- err:
	default: // there is a reason already
	}
}

// messages is how many messages are read at once.
const messages = 16

// read reads messages until it is stopped, through the way in which a file's descriptor is waited for.
func (p *pager) read(wait func(func(fd uintptr) bool) error) error {
	buf := make([]byte, messages*messageSize)
	for {
		var got error
		err := wait(func(fd uintptr) bool {
			var some bool
			some, got = p.receive(buf, func(b []byte) (int, error) { return unix.Read(int(fd), b) })
			return some || got != nil
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("wait for page faults: %w", err)
		case got != nil:
			return fmt.Errorf("read page faults: %w", got)
		}
	}
}

// receive reads the messages that are there, and notes what they say before another page is installed.
func (p *pager) receive(buf []byte, read func([]byte) (int, error)) (some bool, err error) {
	p.mem.reading.Lock()
	defer p.mem.reading.Unlock()
	n, err := read(buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return false, err
	case n < messageSize:
		return false, fmt.Errorf("%d bytes are no message", n)
	}
	now := time.Now()
	for b := buf[:n]; len(b) >= messageSize; b = b[messageSize:] {
		if err := p.note(message(b[:messageSize]), now); err != nil {
			return true, err
		}
	}
	return true, nil
}

// note takes a message. The lock of the memory is held.
func (p *pager) note(m message, now time.Time) error {
	switch m.event() {
	case eventPagefault:
		unit, ok := p.mem.unit(m.address())
		if !ok {
			return fmt.Errorf("a fault at %#x, which is in no region of the handshake", m.address())
		}
		if !m.missing() { // it would fault on the page again, as often as it is told that it is there
			return fmt.Errorf("a fault at %#x on a page that is there: the VM has its memory write-protected, or "+
				"registered for minor faults, which is not served", m.address())
		}
		p.queue.put(fault{unit, now})
		return nil
	case eventRemove, eventUnmap:
		p.count.removed.Add(p.mem.remove(m.removed()) * p.perUnit())
		return nil
	case eventFork:
		return errors.New("the VM forked: its memory would be in two places")
	case eventRemap:
		return errors.New("the VM moves its memory")
	}
	return fmt.Errorf("an unknown message of type %#x", m.event())
}

// answer answers faults until the queue is closed.
func (p *pager) answer() {
	w := &worker{p: p}
	if p.perUnit() > 1 {
		w.unit = make([]byte, p.mem.pageSize)
	}
	for {
		f, ok := p.queue.take()
		if !ok {
			return
		}
		near, err := w.answer(f.unit)
		p.failed(err)
		p.count.fault(time.Since(f.at))
		p.near.wanted(f.unit)
		if idle := p.queue.answered(); idle && near && err == nil {
			w.bringNear(f.unit)
		}
	}
}

// A worker is a goroutine that answers faults, and its buffers.
type worker struct {
	p      *pager
	buffer Buffer
	unit   []byte // a huge page
}

// answer gives a unit to those who wait for it. near says that pages beside it may be brought along.
func (w *worker) answer(unit uint64) (near bool, err error) {
	p := w.p
	var data []byte
	if p.mem.has(unit) {
		p.count.again.Add(1)
	} else if data, err = w.read(unit); err != nil {
		return false, err
	} else {
		near = true
	}
	if err := p.mem.answer(p.ctx, unit, data); err != nil {
		if errors.Is(err, errGone) || p.ctx.Err() != nil {
			return false, errGone
		}
		return false, &LostError{unit * p.perUnit(), fmt.Errorf("install it: %w", err)}
	}
	return near, nil
}

// read reads a unit; nil: it is zeros.
func (w *worker) read(unit uint64) (data []byte, err error) {
	first, n := unit*w.p.perUnit(), w.p.perUnit()
	switch {
	case w.p.zero(unit):
		return nil, nil
	case n == 1:
		data, err = w.p.src.Page(first, &w.buffer)
	default:
		data, err = w.unit, w.p.src.Read(first, w.unit)
	}
	if err != nil {
		return nil, w.p.lost(first, err)
	}
	if isZero(data) {
		return nil, nil
	}
	return data, nil
}

// lost is the error for pages from gfn on that cannot be read.
func (p *pager) lost(gfn uint64, err error) error {
	if pages, ok := errors.AsType[*index.PagesError](err); ok && len(pages.GFNs) > 0 {
		gfn = pages.GFNs[0]
	}
	return &LostError{gfn, err}
}

// zero says whether a unit is known to be zeros.
func (p *pager) zero(unit uint64) bool {
	first := unit * p.perUnit()
	for gfn := first; gfn < first+p.perUnit(); gfn++ {
		if !p.src.Zero(gfn) {
			return false
		}
	}
	return true
}

var zeroPage [index.PageSize]byte

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroPage))
		if !bytes.Equal(b[:n], zeroPage[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// nearZeros is among how many pages those are looked for that are zeros like one that was wanted. To map them
// costs next to nothing, and a guest that uses memory which was free does not fault on each page.
const nearZeros = 64

// bringNear installs what lies beside a page that was given. Errors are left to those who want such a page.
func (w *worker) bringNear(unit uint64) {
	p := w.p
	switch {
	case p.perUnit() > 1: // a huge page has its neighbours in it
	case p.src.Zero(unit):
		p.bringZeros(unit)
	default:
		w.bringBlock(unit)
	}
}

// bringBlock installs the pages that are stored beside one that was given, if that pays.
func (w *worker) bringBlock(unit uint64) {
	p := w.p
	gfns := p.src.Beside(&w.buffer)
	if len(gfns) < 2 {
		return
	}
	bring, gain := p.near.pays(gfns[0])
	if !bring {
		return
	}
	piece := p.src.Near(&w.buffer)
	if piece == nil {
		return
	}
	end := len(piece.GFNs)
	if gain > 0 { // one is left out
		end = slices.IndexFunc(piece.GFNs, func(gfn uint64) bool { return gfn != unit && !p.mem.has(gfn) })
		if end < 0 {
			return // all are there
		}
		p.near.probe(piece.GFNs[end], gain)
	}
	came, err := p.bringPages(piece.GFNs[:end], piece.Pages, p.queue.empty)
	if err == nil && end < len(piece.GFNs) {
		var more uint64
		more, _ = p.bringPages(piece.GFNs[end+1:], piece.Pages[(end+1)*index.PageSize:], p.queue.empty)
		came += more
	}
	p.count.near.Add(came)
}

// bringZeros maps the zeros around a page.
func (p *pager) bringZeros(unit uint64) {
	first := unit &^ (nearZeros - 1)
	end := min(first+nearZeros, p.src.Pages())
	for u := first; u < end; {
		n := uint64(0)
		for u+n < end && p.src.Zero(u+n) {
			n++
		}
		came, _ := p.mem.bring(p.ctx, u, n, nil)
		p.count.zeros.Add(came)
		u += n + 1
	}
}

// bringPages installs pages of 4 KiB that are not settled: those that follow one another by one call. goOn is
// asked before each call.
func (p *pager) bringPages(gfns []uint64, pages []byte, goOn func() bool) (brought uint64, err error) {
	for i := 0; i < len(gfns) && goOn(); {
		zero := isZero(pages[i*index.PageSize:][:index.PageSize])
		n := 1
		for n < maxStep && i+n < len(gfns) && gfns[i+n] == gfns[i]+uint64(n) &&
			isZero(pages[(i+n)*index.PageSize:][:index.PageSize]) == zero {
			n++
		}
		var data []byte
		if !zero {
			data = pages[i*index.PageSize:][:n*index.PageSize]
		}
		came, err := p.mem.bring(p.ctx, gfns[i], uint64(n), data)
		brought += came
		if err != nil {
			return brought, err
		}
		i += n
	}
	return brought, nil
}
