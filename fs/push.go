package fs

import (
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxPush is the longest run that goes to the kernel in one notification, in pages: 1 MiB. Longer
// ones are not faster, and a cancelled restore would go on for longer.
const maxPush = 256

// A notifier is the part of fuse.Server that talks to the kernel.
type notifier interface {
	InodeNotifyStoreCache(node uint64, offset int64, data []byte) fuse.Status
	InodeNotify(node uint64, off int64, length int64) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
}

// A pushError is a push that the kernel refused.
type pushError struct{ status fuse.Status }

func (e *pushError) Error() string { return fmt.Sprintf("push into the page cache: %v", e.status) }

// push puts the pages of p that are wanted into the page cache, one notification for each run of
// neighbouring pages, and calls pushed for each.
//
// It waits for READs: a page whose READ comes in between the look at inflight and the notification
// is locked until that READ is answered. Hence the rule that this is called with no lock held that
// a READ could want, and never by a READ; of m.gate only drops take the other side. READs that wait for
// pages to come are let go before it waits for m.gate, and do not wait for pages that are being stored.
func (s *Server) push(m *memoryFile, sess *session, p *Piece, pushed func(first, n uint64)) error {
	for i := 0; i < len(p.GFNs); {
		first := p.GFNs[i]
		if !m.wants(sess, first) {
			i++
			continue
		}
		n := 1
		for i+n < len(p.GFNs) && n < maxPush && p.GFNs[i+n] == first+uint64(n) &&
			m.wants(sess, p.GFNs[i+n]) {
			n++
		}
		err := s.storeRun(m, sess, first, p.Pages[i*PageSize:(i+n)*PageSize])
		if err == errAgain {
			continue // look again: a page is not wanted any more
		}
		if err != nil {
			return err
		}
		pushed(first, uint64(n))
		i += n
	}
	return nil
}

// storeRun sends one run to the kernel.
func (s *Server) storeRun(m *memoryFile, sess *session, first uint64, data []byte) error {
	n := uint64(len(data) / PageSize)
	m.storing.begin(first, n)
	defer m.storing.end(first, n)
	if m.inflight.any(first, n) {
		return errAgain
	}
	if !m.gate.TryRLock() {
		m.coming.letGo()
		m.gate.RLock()
	}
	defer m.gate.RUnlock()
	if m.sess.Load() != sess || m.poisoned.Load() {
		return errStale
	}
	if m.hole(first, n) {
		return errAgain
	}
	status := s.kernel.InodeNotifyStoreCache(m.node, int64(first*PageSize), data)
	if !status.Ok() {
		return &pushError{status}
	}
	sess.resident.addRange(first, n)
	s.metrics.pushes.Add(1)
	s.metrics.pushBytes.Add(uint64(len(data)))
	return nil
}

// pushPiece pushes a piece of a restore and counts it.
func (s *Server) pushPiece(f *flight, p *Piece) error {
	return s.push(f.m, f.sess, p, f.count)
}

// count adds pages that were pushed to those that opens waited for, or to the tail.
func (f *flight) count(first, n uint64) {
	f.bytes.Add(int64(n) * PageSize)
	if f.tail.Load() {
		f.sess.tail.Add(n)
	} else {
		f.sess.prefetched.Add(uint64(f.sess.brought.addRange(first, n)))
	}
}

// pushZeros pushes every zero page of the image, which an eager restore brings like any other page. It
// leaves out the zero pages of images that the host cannot hold anyway: a sparse terabyte would only
// evict everything else. They come when they are touched.
func (s *Server) pushZeros(f *flight) (err error) {
	if f.m.size > s.ram/2 {
		s.log.Warn("eager restore without zero pages: the image is larger than half of host memory",
			"checkpoint", f.m.e.name, "bytes", f.m.size)
		return nil
	}
	f.h.mem.ZeroRuns(func(first, count uint64) bool {
		for count > 0 && err == nil {
			n := min(count, maxPush)
			if err = s.turn(f); err == nil {
				err = s.pushPiece(f, s.zeros.piece(first, n))
			}
			first, count = first+n, count-n
		}
		return err == nil
	})
	return err
}
