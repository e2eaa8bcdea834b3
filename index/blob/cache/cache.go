package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options are those of a Cache. What is zero gets its default.
type Options struct {
	// Size is how many bytes the files may take; 0: as many as MinFree leaves.
	Size int64
	// MinFree is the share of the file system that stays free; a tenth by default, none if negative.
	MinFree float64
	// Fetch is how much is read at least from the store, in bytes: what is missed and what lies around it,
	// on a multiple of it. A power of two, 256 KiB by default.
	Fetch int
	// Queue bounds the bytes that wait to be written to the disk; 64 MiB by default.
	Queue int64
	// Log gets what fails. Nil: nothing is logged.
	Log *slog.Logger
}

const (
	defaultFetch = 256 << 10
	defaultQueue = 64 << 20
	defaultFree  = 0.1
)

// Cache is a directory with what was read. Its methods may be called by many goroutines at once.
type Cache struct {
	dir     string
	o       Options
	log     *slog.Logger
	now     func() uint32 // minute, but in tests
	buffers sync.Pool     // of slotSize bytes
	stats   counters

	opening sync.Mutex
	files   map[key]*file // open ones; guarded by opening

	mu      sync.Mutex            // never held over I/O
	flights map[flightKey]*flight // what is being fetched; guarded by mu, as all below
	queued  int64                 // bytes in the queue
	closed  bool

	queue chan insertion
	wg    sync.WaitGroup
}

// insertion is what shall be written to a file.
type insertion struct {
	f     *file
	first int // block
	b     []byte
	done  chan<- struct{} // closed when it is its turn, if it is none but a mark
}

// flightKey is what is fetched at once: a unit of a blob.
type flightKey struct {
	blob key
	unit int64
}

// flight is a fetch that is under way. b and err are there when done is closed.
type flight struct {
	done chan struct{}
	b    []byte
	err  error
}

// Open opens the cache in a directory, and makes it if it is missing. The caller must call Close.
func Open(dir string, o Options) (*Cache, error) {
	if o.Fetch == 0 {
		o.Fetch = defaultFetch
	}
	if o.Queue == 0 {
		o.Queue = defaultQueue
	}
	if o.MinFree == 0 {
		o.MinFree = defaultFree
	}
	if o.Fetch < blockSize || o.Fetch > slotSize || o.Fetch&(o.Fetch-1) != 0 {
		return nil, fmt.Errorf("open cache: fetch of %d bytes: must be a power of two from %d to %d", o.Fetch,
			blockSize, slotSize)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{dir: dir, o: o, log: log, now: minute, files: map[key]*file{}, flights: map[flightKey]*flight{},
		queue: make(chan insertion, 1024)}
	c.buffers.New = func() any { b := make([]byte, slotSize); return &b }
	if err := c.usable(); err != nil {
		return nil, fmt.Errorf("open cache %s: %w", dir, err)
	}
	c.wg.Go(c.work)
	return c, nil
}

// usable tries what a cache needs of its file system.
func (c *Cache) usable() error {
	f, err := os.CreateTemp(c.dir, ".probe-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	probe := &file{f: f}
	if err := probe.lock(unix.F_WRLCK, lockOpen, false); err != nil {
		return fmt.Errorf("its file system has no locks: %w", err)
	}
	if err := f.Truncate(2 * align); err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, align)
	if err != nil {
		return fmt.Errorf("its file system makes no holes: %w", err)
	}
	return nil
}

// Close writes what waits for it. Objects that are still open read from their stores from then on.
func (c *Cache) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if !was {
		close(c.queue)
	}
	c.wg.Wait()
	return nil
}

// file returns the file of a blob, which release gives back; nil if the blob is not cached.
func (c *Cache) file(k key, size int64, create bool) *file {
	c.opening.Lock()
	defer c.opening.Unlock()
	if f := c.files[k]; f != nil {
		f.refs.Add(1)
		return f
	}
	f, err := openFile(c.dir, k, size, create, c.now)
	if err != nil {
		if create || !errors.Is(err, os.ErrNotExist) {
			c.failed(err)
		}
		return nil
	}
	f.refs.Store(1)
	c.files[k] = f
	return f
}

func (c *Cache) release(f *file) {
	if f.refs.Add(-1) > 0 {
		return
	}
	c.opening.Lock()
	defer c.opening.Unlock()
	if f.refs.Load() == 0 && c.files[f.key] == f {
		delete(c.files, f.key)
		f.f.Close()
	}
}

// failed notes an error of the disk.
func (c *Cache) failed(err error) {
	c.stats.Errors.Add(1)
	c.log.Warn("cache", "dir", c.dir, "error", err)
}

// flight returns what fetches a unit, and whether that is the caller, who has to call land.
func (c *Cache) flight(k flightKey) (f *flight, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[k]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	c.flights[k] = f
	return f, true
}

func (c *Cache) land(k flightKey, f *flight) {
	c.mu.Lock()
	delete(c.flights, k)
	c.mu.Unlock()
	close(f.done)
}

// insert has blocks written, unless too much waits already. Nobody changes b from then on.
func (c *Cache) insert(f *file, first int, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.stats.full.Load() || c.queued+int64(len(b)) > c.o.Queue {
		c.stats.Dropped.Add(int64(len(b)))
		return
	}
	f.refs.Add(1) // the caller has one, too
	select {
	case c.queue <- insertion{f: f, first: first, b: b}:
		c.queued += int64(len(b))
	default:
		f.refs.Add(-1)
		c.stats.Dropped.Add(int64(len(b)))
	}
}

// Flush waits until what was read so far is written to the cache, or dropped.
func (c *Cache) Flush() {
	done := make(chan struct{})
	for !c.mark(done) {
		// The queue is full of what is to be waited for.
		time.Sleep(time.Millisecond)
	}
	<-done
}

// mark puts a mark into the queue; false if it is full.
func (c *Cache) mark(done chan<- struct{}) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		close(done)
		return true
	}
	select {
	case c.queue <- insertion{done: done}:
		return true
	default:
		return false
	}
}

// work writes what is inserted, and makes room.
func (c *Cache) work() {
	var written int64 // since there was room
	c.makeRoom()
	for in := range c.queue {
		if in.done != nil {
			close(in.done)
			continue
		}
		err := in.f.write(in.first, in.b)
		c.mu.Lock()
		c.queued -= int64(len(in.b))
		c.mu.Unlock()
		c.release(in.f)
		if err != nil {
			c.failed(err)
		}
		written += int64(len(in.b))
		c.stats.Written.Add(int64(len(in.b)))
		if written >= c.step() || err != nil {
			c.makeRoom()
			written = 0
		}
	}
}

// step is how much is written before the limits are looked at again.
func (c *Cache) step() int64 {
	if c.o.Size > 0 {
		return min(c.o.Size/32, 64<<20)
	}
	return 64 << 20
}
