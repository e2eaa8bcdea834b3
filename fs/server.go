package fs

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A Server serves one store on one mount point. Its methods may be called from many goroutines at
// once, but never from a handler of its own mount.
type Server struct {
	store Store
	opts  Options
	log   *slog.Logger
	mnt   string // absolute
	guard guard
	ram   uint64 // of the host, in bytes

	policy    atomic.Int64
	pace      lastPace
	flying    atomic.Int64 // restores that go on, their tails among them
	filling   atomic.Int64 // bytes of the memory files that are filled
	watching  atomic.Int64 // restores from which something is learned
	tree      *tree
	liveTexts liveTexts
	idle      idleList
	demand    demand
	replies   replies
	pieces    pieces
	turns     chan struct{} // has an element for each piece of any restore that is decoded or pushed
	clusters  clusters
	images    atomic.Uint64 // that were opened
	opening   chan struct{} // has an element for each image that is being opened
	zeros     *zeros
	pushers   *pushers
	metrics   *metrics
	restores  *restoreNames

	// kernel sends notifications to the kernel. It is set before the first request is answered.
	kernel notifier
	fuse   *fuse.Server
	// ledger is what the next server must know; nil if there can be none.
	ledger    *ledger
	inherited inherited
	draining  atomic.Bool
	// device is the open /dev/fuse if mount(2) mounted it; negative if fusermount3 did.
	device int
	// minor is the number of the connection.
	minor uint32
	// served is closed when the kernel has ended the connection.
	served chan struct{}

	// refreshing serialises Refresh.
	refreshing sync.Mutex

	// ctx ends when the mount is gone.
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex     // guards wg.Add against wg.Wait
	wg     sync.WaitGroup // goroutines besides go-fuse's own
	closed bool           // guarded by mu
	done   chan struct{}  // closed when all is over

	complained rate // of logged errors of requests
	warned     rate // of logged warnings
	fell       rate // of logged panics
	looked     rate // of refreshes because of unknown names
	began      time.Time
}

func newServer(ctx context.Context, store Store, mnt string, o Options) *Server {
	s := &Server{
		store: store,
		opts:  o,
		log:   o.Log,
		mnt:   mnt,
		guard: newGuard(o.Rights, self()),
		tree:  newTree(),
		zeros: new(zeros),
		began: time.Now(),

		restores: newRestoreNames(),

		pieces: pieces{free: make(chan struct{}, maxPieces)},
		turns:  make(chan struct{}, max(o.Workers, runtime.NumCPU())),

		opening: make(chan struct{}, maxOpening),

		device: -1,
		served: make(chan struct{}),
		done:   make(chan struct{}),
	}
	s.policy.Store(int64(o.Policy))
	var host unix.Sysinfo_t
	if err := unix.Sysinfo(&host); err == nil {
		s.ram = uint64(host.Totalram) * uint64(host.Unit)
	}
	s.pushers = &pushers{srv: s, queue: newJobs()}
	s.metrics = newMetrics(s)
	// The mount outlives this call, so the end of ctx does not end it; its values are kept.
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

// goes runs fn in a goroutine that close waits for; false if it is too late for that. A panic ends
// the goroutine only; what names its work in the log.
func (s *Server) goes(what string, fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(func() {
		defer s.rescue(what, nil)
		fn()
	})
	return true
}

// close ends everything that is left when the mount is gone.
func (s *Server) close() {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
	if s.device >= 0 {
		unix.Close(s.device)
	}
	s.ledger.close()
	for _, e := range s.tree.known() {
		e.mu.Lock()
		e.opens = 0 // the kernel sends no RELEASE for what is open when a connection ends
		err := s.settleLocked(e, true)
		e.mu.Unlock()
		if err != nil {
			s.complain(e, "close image", err)
		}
	}
	close(s.done)
}

// Wait returns when the mount is gone, for any reason, and everything that served it has ended.
func (s *Server) Wait() { <-s.done }

// Refresh updates the tree from the store. Call it after an import, a removal, or a new working set.
// When it returns, the names are those of the store. Files of removed checkpoints that are open can
// still be used.
func (s *Server) Refresh(ctx context.Context) error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	list, err := s.store.List(ctx)
	if err != nil {
		return fmt.Errorf("list the store's checkpoints: %w", err)
	}
	for _, c := range list {
		s.ledger.note(ledgerKey{Name: c.Name, ID: c.ID})
	}
	stale, gone, again := s.tree.publish(list, s.newEntry)
	if len(gone) > 0 {
		s.ledger.sweep(s.tree.knows())
	}
	for _, e := range again {
		e.mu.Lock()
		e.gone = false
		e.mu.Unlock()
	}
	for _, e := range gone {
		e.mu.Lock()
		e.gone = true
		err := s.settleLocked(e, true)
		s.unpinLocked(e)
		e.mu.Unlock()
		s.idle.remove(e)
		if err != nil {
			s.complain(e, "close image", err)
		}
	}
	if s.kernel == nil {
		return nil
	}
	for _, d := range stale {
		// ENOENT: the kernel had not asked for the name.
		if st := s.kernel.EntryNotify(d.parent, d.name); !st.Ok() && st != fuse.ENOENT {
			s.log.Warn("the kernel did not drop an old name from its cache", "name", d.name, "err", st)
		}
	}
	return nil
}

// newEntry makes the entry of a checkpoint that is new in the tree, its image cold.
func (s *Server) newEntry(c Checkpoint) *entry {
	e := newEntry(c)
	e.epoch.Store(s.newEpoch(e, false))
	return e
}

func (s *Server) newEpoch(e *entry, armed bool) *epoch {
	bare := !e.info.Load().WorkingSet && Policy(s.policy.Load()) != PolicyEager
	return newEpoch(e.pages(), s.opts.RecordWindow, armed, bare)
}

// CloseIdle closes the images that nobody has open, which otherwise wait for the next restore. To
// be called before checkpoints are removed or packs rewritten.
func (s *Server) CloseIdle() { s.closeIdle(s.idle.drain()) }

// complain logs an error that a request ended with, once a second at most: a broken pack under a
// running guest would fill any log.
func (s *Server) complain(e *entry, what string, err error, more ...any) {
	if s.complained.allows(time.Since(s.began), time.Second) {
		s.log.Error(what, append([]any{"checkpoint", e.name, "err", err}, more...)...)
	}
}

// warn logs a warning, every ten seconds at most.
func (s *Server) warn(what string, args ...any) {
	if s.warned.allows(time.Since(s.began), 10*time.Second) {
		s.log.Warn(what, args...)
	}
}

// A rate bounds how often something is done. It has the time of the last time.
type rate struct{ last atomic.Int64 }

// allows says whether it may be done now, and notes that it is.
func (r *rate) allows(now, every time.Duration) bool {
	last := r.last.Load()
	return (last == 0 || now-time.Duration(last) >= every) &&
		r.last.CompareAndSwap(last, max(int64(now), 1))
}
