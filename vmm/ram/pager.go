package ram

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/thawfs/thaw/wss"
)

// pager serves guest memory that is traced on a kernel without asynchronous write-protection. Anonymous
// memory is mapped in place of the files. The first touch of each page is a message on a userfaultfd,
// and waits until the page was copied in.
//
// One goroutine answers. A vCPU may wait for it, a kernel thread that fetches a page for a vCPU, or a
// system call of the VMM that copies guest memory. So it takes no lock that one of these may hold,
// reads only from the files, and ends last. All of them wait inside the kernel, so the Go runtime is
// not blocked (see doc.go).
type pager struct {
	mapping mapping
	pieces  []piece // the files with the pages
	uffd    *os.File
	touched *wss.Bitmap // pages that were copied in
	// touch is called for each fault before it is answered, lost for a page that cannot be read.
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
		if err != nil { // this should not happen, but no thread may wait for ever
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

// answer copies a page in. Two threads may fault on one page at once: the first answer is for both.
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
		return // the threads wait until the machine is closed
	}
	_ = uffdWake(fd, m)
}

// stop ends the goroutine. Threads that wait for a page keep waiting until the descriptor is closed.
func (s *pager) stop() error {
	err := s.uffd.SetReadDeadline(time.Unix(1, 0))
	<-s.done
	return err
}
