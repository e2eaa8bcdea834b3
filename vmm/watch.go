package vmm

import (
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/vmm/ram"
)

const (
	watchTime = 250 * time.Millisecond
	// silentTime is how long a server may be silent before somebody is told.
	silentTime = 5 * time.Second
)

// watcher ends a restored machine when the mount under its memory has lost its server. The guest
// would go on as long as it needs no page that is not there; but pages that are there may be
// dropped at any time, so it would die later, at a moment that nobody understands.
//
// A server that is there and does not answer is another matter. It may be busy, or stopped, or
// about to be replaced by another process that answers the same requests; and nothing is lost, for
// every page comes in the end or fails. So the machine waits. After [silentTime] the log says so,
// and the status from then on; a user who does not want to wait ends the machine, or the mount.
type watcher struct {
	quit, done chan struct{}
	answers    chan error
	asked      atomic.Int64 // when the question was put that is not answered yet; 0: none
}

// watch starts a watcher.
func (m *Machine) watch() *watcher {
	w := &watcher{quit: make(chan struct{}), done: make(chan struct{}), answers: make(chan error, 1)}
	go w.loop(m)
	return w
}

func (w *watcher) loop(m *Machine) {
	defer close(w.done)
	tick := time.NewTicker(watchTime)
	defer tick.Stop()
	loops := m.watchPageLoops()
	warned := false
	for {
		select {
		case <-w.quit:
			return
		case <-m.ended:
			return
		case err := <-w.answers:
			w.asked.Store(0)
			if warned {
				m.log.Info("the mount answers again")
			}
			warned = false
			if err != nil {
				m.end(&ram.LostError{Sign: "the mount has lost its server", Err: err})
				return
			}
		case <-tick.C:
			loops.look()
			if w.asked.Load() == 0 {
				// In a goroutine of its own: if the server hangs, it waits for as long. The server itself
				// is asked, every time; nothing of this is cached.
				w.asked.Store(time.Now().UnixNano())
				go func() { w.answers <- m.mem.Alive() }()
			} else if silent := w.silent(); silent > silentTime && !warned {
				warned = true
				m.log.Warn("the mount of the machine's memory does not answer", "for", silent)
			}
		}
	}
}

// silent is how long the server has not answered.
func (w *watcher) silent() time.Duration {
	if at := w.asked.Load(); at != 0 {
		return time.Since(time.Unix(0, at))
	}
	return 0
}

// stop ends the watcher and waits for it, but not for a server that neither answers nor dies.
func (w *watcher) stop() {
	close(w.quit)
	<-w.done
	if w.asked.Load() == 0 {
		return
	}
	timer := time.NewTimer(4 * watchTime)
	defer timer.Stop()
	select {
	case <-w.answers:
	case <-timer.C:
	}
}
