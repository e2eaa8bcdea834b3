package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/index/seal"
)

const (
	// PageSize is the size of a guest page, in bytes.
	PageSize = pack.PageSize
	// LeafPages is the number of pages that a leaf of the page map covers (2 MiB of guest memory).
	LeafPages = 512
)

// Profile is a choice between space and time: ProfileDefault or ProfileFast.
type Profile = pack.Profile

// The profiles of package pack.
const (
	ProfileDefault = pack.ProfileDefault
	ProfileFast    = pack.ProfileFast
)

// ParseProfile reads "default" or "fast".
func ParseProfile(s string) (Profile, error) { return pack.ParseProfile(s) }

// OpenOptions is how to open a store.
type OpenOptions struct {
	// ReadOnly opens the store for reading, while another process may write to it: without a lock,
	// without the index, and without writing anything. Methods that write return ErrReadOnly.
	ReadOnly bool
	// Wait is how long to wait for another process that writes to the store, before ErrLocked.
	Wait time.Duration
	// Yield says that this process closes the store soon when another one waits to write to it (see
	// WriterWaits). That one waits longer than its Wait for such a process.
	Yield Yield
	// Create makes a store in a missing or empty directory; a store that exists is opened.
	Create bool
	// Among lets Create make it in a directory with other files, which stay.
	Among bool
	// Profile is written into a store that is created, and returned by Store.Profile.
	Profile Profile
	// Keeper returns a command that does nothing but call KeeperMain. It is started when an index is
	// needed, and ended by Close. It has Badger open, and so may die because of a full disk or a damaged
	// file. Nil: Badger is opened in this process, which may then die instead.
	Keeper func() *exec.Cmd
	// Keys gets the key of a sealed store. A store that is created while there is one is sealed.
	Keys KeySource
	// MustSeal makes a store that is not sealed an error (ErrNotSealed).
	MustSeal bool
	// Log gets what was repaired, removed, or failed. Nil: nothing is logged.
	Log *slog.Logger
	// Blobs holds packs and checkpoints; nil means the store's own directory.
	Blobs blob.Store
	// Wrap, if not nil, is put around Blobs: a simulated disk (package disk), for example.
	Wrap func(context.Context, blob.Store) (blob.Store, error)
}

// Store is an open store. All methods may be called by many goroutines at once.
//
// Locks, in the order in which they are taken: writer, hints.sem, refreshing, catalog.mu,
// packEntry.mu, packSet.mu. A read of a page takes none.
type Store struct {
	dir      string
	readOnly bool
	yield    Yield // see OpenOptions
	log      *slog.Logger
	file     *storeFile
	key      pack.HashKey
	vault    *seal.Vault // nil: the store is not sealed
	lock     *os.File    // nil on a reader
	blobs    blob.Store
	dec      *pack.Decoder
	packs    *packSet
	cat      catalog

	// writer is held (by sending) by what makes, moves or removes packs: import, gc, check and the
	// setting of a working set. One at a time.
	writer chan struct{}
	// refreshing is held (by sending) by Refresh.
	refreshing chan struct{}

	hints *hints  // the index; nil on a reader
	alloc numbers // of packs; guarded by writer

	limits limits

	// They save reads on high-latency media (see blob.Medium); nil on others.
	blocks *blockCache
	roots  *lru.Cache[*catalogEntry, *root]

	reading   sync.RWMutex  // held while a root is read; for writing by Close
	changes   atomic.Uint64 // of what is in the store, as far as this process has seen
	listed    *listing      // what a reader saw last; guarded by refreshing
	closed    atomic.Bool
	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	closeErr  error
}

// limits of an import; tests make them small.
type limits struct {
	packPages   uint32 // of a pack
	freshPages  int    // that an import remembers itself
	tailPages   int    // of packs that are not in the index
	gatherPages int    // that make it worth to bring versions of pages together
	gatherPart  uint32 // of a pack that they are brought together in; 0: packPages
}

// part is how many pages come into a pack in which versions of pages are brought together.
func (l limits) part() uint32 {
	if l.gatherPart == 0 {
		return l.packPages
	}
	return min(l.gatherPart, l.packPages)
}

// Open opens the store in dir. One process at a time can open it for writing (ErrLocked otherwise); it
// finishes or removes what an interrupted one left. Any number of processes can open it for reading
// (OpenOptions.ReadOnly), also while one writes.
func Open(ctx context.Context, dir string, o OpenOptions) (_ *Store, err error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if o.Create && o.ReadOnly {
		return nil, fmt.Errorf("create store %s: %w", dir, ErrReadOnly)
	}
	if o.Create {
		if err := createStore(ctx, dir, o.Profile, o.Keys, o.Wait, o.Among); err != nil {
			return nil, err
		}
	}
	s := &Store{
		dir: dir, readOnly: o.ReadOnly, yield: o.Yield, log: log, blobs: o.Blobs,
		writer: make(chan struct{}, 1), refreshing: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	s.limits = limits{
		packPages: maxPackPages, freshPages: maxFresh, tailPages: maxTail, gatherPages: minGather,
		gatherPart: gatherPart,
	}
	s.cat.m = map[string]*catalogEntry{}
	if s.file, err = readStoreFile(dir); err != nil {
		return nil, err
	}
	if err = s.unseal(ctx, o); err != nil {
		return nil, err
	}
	if !o.ReadOnly {
		if s.lock, err = lockWriter(ctx, dir, o.Wait, o.Yield); err != nil {
			return nil, err
		}
	}
	if err := s.open(ctx, o.Wrap, o.Keeper); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", dir, err), s.Close())
	}
	return s, nil
}

// unseal gets the keys of the store.
func (s *Store) unseal(ctx context.Context, o OpenOptions) (err error) {
	if s.file.Seal == nil {
		if o.MustSeal {
			return fmt.Errorf("open store %s: %w", s.dir, ErrNotSealed)
		}
		s.key, err = s.file.key()
		return err
	}
	if s.vault, err = s.file.unseal(ctx, s.dir, o.Keys); err == nil {
		s.key = s.vault.HashKey()
	}
	return err
}

func (s *Store) open(ctx context.Context,
	wrap func(context.Context, blob.Store) (blob.Store, error), keeper func() *exec.Cmd) (err error) {
	if s.blobs == nil {
		// For writing only under the lock, because it removes what other writers have not committed.
		open := blob.OpenDir
		if s.readOnly {
			open = blob.OpenDirReadOnly
		}
		dir, err := open(s.dir)
		if err != nil {
			return err
		}
		s.blobs = dir
	}
	if wrap != nil {
		if s.blobs, err = wrap(ctx, s.blobs); err != nil {
			return err
		}
	}
	if s.vault != nil {
		s.blobs = s.vault.Wrap(s.blobs, rootsDirName)
	}
	if m := blob.MediumOf(s.blobs); m.HighLatency() {
		s.blocks = newBlockCache(m)
		if s.roots, err = lru.New[*catalogEntry, *root](cachedRoots); err != nil {
			return err
		}
	}
	if s.dec, err = pack.NewDecoder(); err != nil {
		return err
	}
	s.packs = newPackSet(s.blobs, s.dec)
	if s.readOnly {
		s.packs.refresh = s.Refresh
		return s.refresh(ctx)
	}
	s.hints = newHints(s, s.openKeys(keeper))
	return s.recover(ctx)
}

// Close closes the store. Images and files that are still open fail from now on.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		close(s.closing)
		// What is being written or looked up ends first.
		s.writer <- struct{}{}
		s.refreshing <- struct{}{}
		if s.hints != nil {
			s.hints.close()
		}
		var errs []error
		if s.packs != nil {
			s.cat.mu.Lock() // a Remove
			errs = append(errs, s.packs.close())
			s.cat.mu.Unlock()
		}
		if s.dec != nil {
			s.reading.Lock()
			s.dec.Close()
			s.reading.Unlock()
		}
		if s.lock != nil {
			errs = append(errs, s.lock.Close())
		}
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// Dir is the directory that was opened.
func (s *Store) Dir() string { return s.dir }

// Profile is the profile that the store was created with.
func (s *Store) Profile() Profile { return s.file.Profile }

// enter begins a method: it fails after Close or cancellation.
func (s *Store) enter(ctx context.Context) error {
	if s.closed.Load() {
		return fmt.Errorf("store %s: %w", s.dir, ErrClosed)
	}
	return ctx.Err()
}

// mayWrite begins a method that writes.
func (s *Store) mayWrite(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	if s.readOnly {
		return fmt.Errorf("store %s: %w: it was opened for reading", s.dir, ErrReadOnly)
	}
	return nil
}

// write begins a method that writes and excludes others that do. It returns the function that ends it.
func (s *Store) write(ctx context.Context) (done func(), err error) {
	if err := s.mayWrite(ctx); err != nil {
		return nil, err
	}
	return s.alone(ctx)
}

// alone takes the writer's lock, and returns the function that releases it.
func (s *Store) alone(ctx context.Context) (done func(), err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	select {
	case s.writer <- struct{}{}:
	case <-s.closing:
		return nil, s.enter(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := s.enter(ctx); err != nil {
		<-s.writer
		return nil, err
	}
	return func() { <-s.writer }, nil
}

// Progress says how far a long operation has come. Stage names what is counted, in Unit: "bytes",
// "pages", ....
type Progress struct {
	Stage string `json:"stage"`
	Unit  string `json:"unit"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // 0: not known
}
