package ram

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/thawfs/thaw/wss"
)

// pager is guest memory that is traced on a kernel which has no asynchronous write-protection: in
// place of the files there is empty memory, and each first touch of a page is a message on a
// userfaultfd and waits until the page was copied in.
//
// One goroutine answers. It has to whoever else waits: a vCPU, the kernel thread that fetches a page
// for one, a system call of the VMM that copies from the guest. So it takes no lock that one of
// these may hold, reads from the files alone, and ends last. All of them wait in the kernel, where
// they hold up nobody in this process (doc.go says why nothing touches the mapping otherwise).
type pager struct {
	mapping mapping
	pieces  []piece // what the pages are
	uffd    *os.File
	touched *wss.Bitmap // pages that were copied in
	// touch is told of each fault before it is answered, and lost of a page that cannot be read.
	touch func(gfn uint64, thread int)
	lost  func(error)

	failed error // a page could not be read
	done   chan struct{}
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
		if err != nil { // this should not happen; no thread must wait for ever
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

// fail makes memory that cannot be read inaccessible, so that waiting threads get an error and
// never zeros.
func (s *pager) fail(fd int, m mapping, err error) {
	s.failed = errors.Join(s.failed, err)
	s.lost(err)
	if err := m.protect(); err != nil {
		return // they wait until the machine is closed
	}
	_ = uffdWake(fd, m)
}

// stop ends the goroutine. Threads that wait go on waiting until the descriptor is closed.
func (s *pager) stop() error {
	err := s.uffd.SetReadDeadline(time.Unix(1, 0))
	<-s.done
	return err
}
