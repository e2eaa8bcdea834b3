package vmm

import (
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/vmm/ram"
)

const (
	watchTime = 250 * time.Millisecond
	// silentTime is how long a server may be silent before the log and the status say so.
	silentTime = 5 * time.Second
)

// watcher ends a restored machine when the mount under its memory has lost its server. Without it the
// guest would run as long as all pages that it needs are cached. But cached pages may be evicted at any
// time, so it would fail later, for no visible reason.
//
// A server that exists but does not answer is different: it may be busy, or stopped, or about to be
// replaced by a new process that answers the same requests. Nothing is lost yet, so the machine waits.
// After [silentTime] the log and the status say so. A user who does not want to wait can stop the
// machine or abort the mount.
type watcher struct {
	quit, done chan struct{}
	answers    chan error
	begun      time.Time
	asked      atomic.Int64 // when the request was sent that is not answered yet, in ns since begun; 0: none
}

// watch starts a watcher.
func (m *Machine) watch() *watcher {
	w := &watcher{quit: make(chan struct{}), done: make(chan struct{}), answers: make(chan error, 1),
		begun: time.Now()}
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
				// On its own goroutine, which blocks as long as the server hangs. Every request reaches
				// the server; nothing is cached.
				w.asked.Store(int64(time.Since(w.begun))) // never 0: a tick has gone by
				go func() { w.answers <- m.mem.Alive() }()
			} else if silent := w.silent(); silent > silentTime && !warned {
				warned = true
				m.log.Warn("the mount of the machine's memory does not answer", "for", silent)
			}
		}
	}
}

// silent returns how long the server has not answered.
func (w *watcher) silent() time.Duration {
	if at := w.asked.Load(); at != 0 {
		return time.Since(w.begun) - time.Duration(at) // whatever the clock of the host is set to
	}
	return 0
}

// stop ends the watcher and waits for it, but not for a request that the server does not answer.
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
