package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A gate lets notifications to the kernel through until it is closed. A server that lets go of its connection
// closes it first: a notification may wait for the answer to a READ, which somebody must give, and a thread
// that waits so keeps the process from ending.
type gate struct {
	notifier
	mu sync.RWMutex // held for reading by who notifies, for good by who has closed it
}

// errGate is the answer of a closed gate.
const errGate = fuse.Status(unix.ESHUTDOWN)

// close waits until nobody notifies, and lets nobody through any more. READs are answered meanwhile.
func (g *gate) close() { g.mu.Lock() }

func (g *gate) InodeNotifyStoreCache(node uint64, offset int64, data []byte) fuse.Status {
	if !g.mu.TryRLock() {
		return errGate
	}
	defer g.mu.RUnlock()
	return g.notifier.InodeNotifyStoreCache(node, offset, data)
}

func (g *gate) InodeNotify(node uint64, off, length int64) fuse.Status {
	if !g.mu.TryRLock() {
		return errGate
	}
	defer g.mu.RUnlock()
	return g.notifier.InodeNotify(node, off, length)
}

func (g *gate) EntryNotify(parent uint64, name string) fuse.Status {
	if !g.mu.TryRLock() {
		return errGate
	}
	defer g.mu.RUnlock()
	return g.notifier.EntryNotify(parent, name)
}

// always is the notifier without its gate, for notifications that wait for nobody.
func (s *Server) always() notifier {
	if g, ok := s.kernel.(*gate); ok {
		return g.notifier
	}
	return s.kernel
}

// ErrNotOurs: /dev/fuse is not in the hands of this server, so no other one can get it.
var ErrNotOurs = errors.New("no other server can go on with the mount: " +
	"it was not made by root with --takeover=auto")

// kickEvery is how often threads are waked that wait for a request.
const kickEvery = 2 * time.Millisecond

// Drain lets go of the connection: the server pushes nothing any more, answers what it has read from
// /dev/fuse, reads no more, and ends. What is asked for then waits for the next server, which may be given
// copies of the descriptors that Connection returns; the caller makes them before. No kernel is needed
// that sends requests again.
//
// It cannot be undone. If ctx ends before, requests that are read may be unanswered; the next server has
// them sent again, where the kernel can do that.
func (s *Server) Drain(ctx context.Context) error {
	if _, ok := s.Connection(); !ok {
		return ErrNotOurs
	}
	s.draining.Store(true)
	for _, e := range s.tree.entries() {
		s.saveAsked(e)
	}
	if g, ok := s.kernel.(*gate); ok {
		g.close()
	}
	// Every read(2) now returns when there is no request; those that wait begin again after a signal.
	if err := unix.SetNonblock(s.device, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	again := time.NewTicker(kickEvery)
	defer again.Stop()
	for {
		kick()
		select {
		case <-s.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("let go of %s: requests are not answered yet: %w", s.mnt, ctx.Err())
		case <-again.C:
		}
	}
}

// kick interrupts the system calls of all threads of the process; Go's runtime has them restarted.
func kick() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG) // it may have ended
		}
	}
}
