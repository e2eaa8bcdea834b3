package ram

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// pager is guest memory that is traced on a kernel which has no asynchronous write-protection: in
// place of the files there is empty memory, and each first touch of a page is a message on a
// userfaultfd and waits until the page was copied in.
//
// One goroutine answers. It has to whoever else waits: a vCPU, the kernel thread that fetches a page
// for one, a system call of the VMM that copies from the guest. So it takes no lock that one of
// these may hold, reads from the files alone, and ends last. All of them wait in the kernel, where
// they hold up nobody in this process (memory.go says why nothing touches the mapping otherwise).
type pager struct {
	mapping mapping
	pieces  []piece // what the pages are
	uffd    *os.File
	touched *wss.Bitmap // pages that were copied in
	// touch is told of each fault before it is answered, and lost of a page that cannot be had.
	touch func(gfn uint64, thread int)
	lost  func(error)

	failed error // a page could not be had
	done   chan struct{}
}

// StartPager takes the files out of the mapping and serves their pages from then on. The guest must
// stand still. If it fails all is as before.
func (m *Memory) StartPager(touch func(gfn uint64, thread int), lost func(error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.own != nil {
		return errors.New("the memory is in too many pieces to be mapped anew")
	}
	// Not for user mode only: it is KVM that touches the pages.
	fd, err := userfaultfd(unix.O_CLOEXEC | unix.O_NONBLOCK)
	if err != nil {
		return fmt.Errorf("userfaultfd for faults of the kernel: %w", err)
	}
	if err := uffdHandshake(fd, uffdFeatureThreadID); err != nil {
		unix.Close(fd)
		return fmt.Errorf("userfaultfd: %w", err)
	}
	s := &pager{mapping: m.mapping, pieces: slices.Clone(m.pieces), touch: touch, lost: lost,
		uffd: os.NewFile(uintptr(fd), "userfaultfd"), touched: wss.NewBitmap(m.size / pageSize),
		done: make(chan struct{})}
	err = m.mapping.empty()
	if err == nil {
		err = advise(m.mapping)
	}
	if err == nil {
		err = uffdRegister(fd, m.mapping, uffdRegisterModeMissing)
	}
	if err != nil {
		all := PageRun{0, m.size / pageSize}
		r := remapping{mem: m, pieces: m.pieces, since: wss.NewBitmap(all.Count)}
		return errors.Join(fmt.Errorf("memory for userfaultfd: %w", err), r.place(all), m.rearm(),
			s.uffd.Close())
	}
	m.pager = s
	go s.serve(fd)
	return nil
}

// serve answers faults until it is stopped.
func (s *pager) serve(fd int) {
	defer close(s.done)
	messages := make([]byte, 64*uffdMessageSize)
	page := make([]byte, pageSize)
	for {
		n, err := s.uffd.Read(messages)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil { // not to be expected; whoever waits must not do so for ever
			s.fail(fd, s.mapping, fmt.Errorf("serve pages: %w", err))
			return
		}
		for b := messages[:n]; len(b) >= uffdMessageSize; b = b[uffdMessageSize:] {
			if addr, thread, ok := uffdFault(b); ok {
				s.answer(fd, uint64(addr-s.mapping.addr)/pageSize, thread, page)
			}
		}
	}
}

// answer copies a page in. Two may ask for one page at once: the first answer is for both.
func (s *pager) answer(fd int, gfn uint64, thread int, page []byte) {
	at := s.mapping.part(gfn*pageSize, pageSize)
	if s.touched.Has(gfn) {
		_ = uffdWake(fd, at)
		return
	}
	s.touch(gfn, thread)
	_, err := readPages(s.pieces, page, gfn)
	if err == nil {
		if err = uffdCopy(fd, at, page); err != nil {
			err = fmt.Errorf("serve page %d: UFFDIO_COPY: %w", gfn, err)
		}
	}
	if err != nil {
		s.fail(fd, at, err)
		return
	}
	s.touched.Set(gfn)
}

// fail makes memory that cannot be had inaccessible, so that whoever waits for it gets an error and
// never zeros.
func (s *pager) fail(fd int, m mapping, err error) {
	s.failed = errors.Join(s.failed, err)
	s.lost(err)
	if err := m.protect(); err != nil {
		return // they wait until the machine is closed
	}
	_ = uffdWake(fd, m)
}

// stop ends the goroutine. Who waits still does so until the descriptor is closed.
func (s *pager) stop() error {
	err := s.uffd.SetReadDeadline(time.Unix(1, 0))
	<-s.done
	return err
}

// StopPager maps the files again, with what the guest has changed since. The guest must stand
// still. After an error nobody can access the memory any more.
func (m *Memory) StopPager() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.pager
	if s == nil {
		return nil // closed
	}
	m.pager = nil
	// With the lock held and the vCPUs parked nobody faults but kernel threads that fetch pages in
	// advance: those go on when the descriptor is closed, and find the files.
	defer func() { err = errors.Join(err, s.uffd.Close()) }()
	if err = errors.Join(s.stop(), s.failed); err == nil {
		err = m.mapAgain(s)
	}
	if err != nil {
		return errors.Join(err, m.mapping.protect())
	}
	m.served = s.touched
	return m.rearm()
}

func (m *Memory) mapAgain(s *pager) error {
	changed, err := m.differing(s.touched)
	if err != nil {
		return err
	}
	r := remapping{mem: m, pieces: s.pieces, since: changed}
	for _, window := range carryWindows(changed, maxCarry) {
		if err := r.move(window); err != nil {
			return err
		}
	}
	if m.before != nil {
		changed = changed.Or(m.before)
	}
	m.before = changed
	return nil
}

// differing gives those of the pages that are other than the files have them. A page that was written
// and is as before is none.
func (m *Memory) differing(pages *wss.Bitmap) (*wss.Bitmap, error) {
	changed := wss.NewBitmap(pages.Len())
	now, then := make([]byte, copyChunk), make([]byte, copyChunk)
	for first, n := range pages.Runs() {
		for _, c := range Chunks(PageRun{first, n}) {
			a, b := now[:c.Count*pageSize], then[:c.Count*pageSize]
			if _, err := m.transfer(a, c.First*pageSize, mapping.read); err != nil {
				return nil, err
			}
			if _, err := readPages(m.pieces, b, c.First); err != nil {
				return nil, err
			}
			for i := uint64(0); i < c.Count; i++ {
				at, end := i*pageSize, (i+1)*pageSize
				if !bytes.Equal(a[at:end], b[at:end]) {
					changed.Set(c.First + i)
				}
			}
		}
	}
	return changed, nil
}
