package vmm

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	fuseMagic = 0x65735546 // f_type of a FUSE mount
	watchTime = 250 * time.Millisecond
)

// watcher ends a restored machine when the mount under its memory has lost its server. The guest
// would go on as long as it needs no page that is not there; but pages that are there may be
// dropped at any time, so it would die later, at a moment that nobody understands.
type watcher struct{ quit, done chan struct{} }

// watch starts a watcher if the memory lies on a FUSE mount.
func (m *Machine) watch() *watcher {
	w := &watcher{quit: make(chan struct{}), done: make(chan struct{})}
	var st unix.Statfs_t
	if !m.mem.private || unix.Fstatfs(int(m.mem.file.Fd()), &st) != nil || st.Type != fuseMagic {
		close(w.done)
		return w
	}
	go w.loop(m)
	return w
}

func (w *watcher) loop(m *Machine) {
	defer close(w.done)
	tick := time.NewTicker(watchTime)
	defer tick.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-m.ended:
			return
		case <-tick.C:
		}
		// The server itself is asked, every time; nothing of this is cached.
		if err := m.mem.alive(); err != nil {
			m.end(&MemoryLostError{Sign: "the mount has lost its server", Err: err})
			return
		}
	}
}

// stop ends the watcher and waits for it, but not for a server that neither answers nor dies.
func (w *watcher) stop() {
	close(w.quit)
	timer := time.NewTimer(4 * watchTime)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	}
}
