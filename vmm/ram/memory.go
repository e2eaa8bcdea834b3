package ram

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// Memory is the guest's RAM: one mapping of files, holes of the address space included.
//
// A machine that was started has its RAM in a memfd, mapped shared. A machine that was restored has the
// checkpoint's files mapped privately: the guest reads from the page cache of those files, and a page
// that it writes becomes a private copy, which never reaches the files. A checkpoint changes the first
// state to the second, and renews the second (remap.go).
type Memory struct {
	size    uint64 // bytes of the image, a multiple of pageSize
	mapping mapping

	mu      sync.RWMutex // read lock: to access guest memory; write lock: to remap it
	pieces  []piece      // the files behind the mapping
	own     *wss.Bitmap  // pages that are private copies although they are unchanged; nil: none
	before  *wss.Bitmap  // pages changed since base, but before the tracker was armed; nil: none
	tracker *tracker     // nil: nothing is tracked
	marked  bool         // the tracker counts from a mark
	base    *Base        // the checkpoint whose files are mapped; nil: none, the machine was started
	pager   *pager       // copies pages in on their first touch, in place of the files; nil: none
	served  *wss.Bitmap  // pages that the pager copied in since base; nil: none
	past    past
}

// past has the pages that were touched and changed before the last remap; nil: there was none.
type past struct{ touched, dirty *wss.Bitmap }

// Base is a checkpoint that a machine's memory is mapped from.
type Base struct {
	Dir string
	ID  [32]byte // identifies the checkpoint; see state.ID
}

// Size is the size of the image in bytes.
func (m *Memory) Size() uint64 { return m.size }

// Address is the address of the mapping in this process, for KVM.
func (m *Memory) Address() uint64 { return uint64(m.mapping.addr) }

// ReadAround allows the kernel's usual readahead around a fault, as for any program that maps a file.
func (m *Memory) ReadAround() error {
	if err := m.mapping.advise(unix.MADV_NORMAL); err != nil {
		return fmt.Errorf("madvise: %w", err)
	}
	return nil
}

// ReadFiles fills p, whole pages, from the files behind the memory, beginning with frame first. It
// touches no page of the mapping.
func (m *Memory) ReadFiles(p []byte, first uint64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, err := readPages(m.pieces, p, first)
	return err
}

// New makes zeroed RAM of size bytes.
func New(size uint64) (*Memory, error) {
	fd, err := unix.MemfdCreate("thaw-guest", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "guest memory")
	if err := f.Truncate(int64(size)); err != nil {
		f.Close()
		return nil, fmt.Errorf("guest memory of %d bytes: %w", size, err)
	}
	mapped, err := mapFile(f, size, mapShared)
	if err != nil {
		f.Close()
		return nil, err
	}
	all := PageRun{0, size / pageSize}
	return &Memory{size: size, mapping: mapped,
		pieces: []piece{{all, &source{file: f, shared: true}}}}, nil
}

// closeTime is how long Close waits for readers of the memory.
const closeTime = 5 * time.Second

// Close unmaps the memory and closes its files. No vCPU may exist any more. It fails with [ErrStuck] if
// a reader still waits for a page after some seconds.
func (m *Memory) Close() error {
	if !m.lockWithin(closeTime) {
		return ErrStuck // a reader waits for a page, and would find other memory at its address
	}
	defer m.mu.Unlock()
	var err error
	if m.tracker != nil {
		err = m.tracker.Close()
	}
	if s := m.pager; s != nil {
		m.pager = nil
		err = errors.Join(err, s.stop(), s.uffd.Close())
	}
	return errors.Join(err, m.mapping.unmap(), sourcesOf(m.pieces).Close())
}

// lockWithin takes the write lock, or gives up after limit: a reader holds the lock for as long as the
// file system does not answer.
func (m *Memory) lockWithin(limit time.Duration) bool {
	for end := time.Now().Add(limit); !m.mu.TryLock(); {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// Mapped says whether any of the memory is mapped from a checkpoint: only then it can be lost.
func (m *Memory) Mapped() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return anyPrivate(m.pieces)
}

func anyPrivate(pieces []piece) bool {
	return slices.ContainsFunc(pieces, func(p piece) bool { return !p.src.shared })
}

// Base is the checkpoint that the memory is mapped from; nil: none.
func (m *Memory) Base() *Base {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.base
}

// WriteAt writes into RAM at a guest physical address. It always writes through the mapping, because
// the tracker sees only such writes.
func (m *Memory) WriteAt(p []byte, gpa int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.transfer(p, uint64(gpa), mapping.write)
}

// ReadAt reads RAM at a guest physical address, as the guest sees it. If a page cannot be read, the
// error is a *LostError.
func (m *Memory) ReadAt(p []byte, gpa int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.transfer(p, uint64(gpa), mapping.read)
}

// transfer copies between p and the mapping by a system call. m.mu is held.
func (m *Memory) transfer(p []byte, gpa uint64, call func(m mapping, local []byte) (int, error)) (
	int, error) {
	if gpa > m.size || uint64(len(p)) > m.size-gpa {
		return 0, io.ErrUnexpectedEOF
	}
	done := 0
	for done < len(p) {
		off := gpa + uint64(done)
		n, err := call(m.mapping.part(off, uint64(len(p)-done)), p[done:])
		if err == nil && n == 0 {
			err = unix.EFAULT
		}
		if errors.Is(err, unix.EFAULT) {
			// The call stopped at the page that cannot be read.
			return done, &LostError{GFN: off / pageSize, Known: true,
				Sign: "a page could not be read by the VMM", Err: err}
		}
		if err != nil {
			return done, fmt.Errorf("guest memory at %#x: %w", off, err)
		}
		done += n
	}
	return done, nil
}

// Scan returns the pages that were touched, and those of them that were changed, since the memory was
// mapped from its checkpoint. Both are nil if it is not mapped from one. The guest may run meanwhile.
func (m *Memory) Scan() (touched, dirty *wss.Bitmap, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.base == nil {
		return nil, nil, nil
	}
	return m.scanLocked()
}

func (m *Memory) scanLocked() (touched, dirty *wss.Bitmap, err error) {
	if touched, dirty, err = m.tracker.scan(); err != nil {
		return nil, nil, err
	}
	if m.pager != nil {
		dirty = wss.NewBitmap(dirty.Len()) // all pages are copies; StopPager finds changes by comparison
	}
	if m.own != nil && m.tracker.exact() {
		// Private copies of the remap are present without a touch. Of these only changes are known.
		touched = touched.AndNot(m.own.AndNot(dirty))
	}
	if m.before != nil {
		touched, dirty = touched.Or(m.before), dirty.Or(m.before)
	}
	if m.served != nil {
		touched = touched.Or(m.served)
	}
	return touched, dirty, nil
}

// ScanAll is Scan for the time since the machine was restored, across all later checkpoints.
func (m *Memory) ScanAll() (touched, dirty *wss.Bitmap, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.scanPast()
}

func (m *Memory) scanPast() (touched, dirty *wss.Bitmap, err error) {
	if m.base == nil {
		return nil, nil, nil
	}
	if touched, dirty, err = m.scanLocked(); err == nil && m.past.touched != nil {
		touched, dirty = touched.Or(m.past.touched), dirty.Or(m.past.dirty)
	}
	return touched, dirty, err
}

// Exact says whether Scan returns exactly the touched pages, and if not, why.
func (m *Memory) Exact() (ok bool, why string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.tracker == nil {
		return false, "nothing is tracked"
	}
	return m.tracker.exact(), m.tracker.why
}

// Alive says whether the file systems of the memory still answer. A mount without its server
// answers ENOTCONN.
func (m *Memory) Alive() error {
	for _, f := range m.Remote() {
		var st unix.Statfs_t
		err := unix.Fstatfs(int(f.Fd()), &st)
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) ||
			errors.Is(err, unix.EIO) {
			return fmt.Errorf("the file system of %s does not answer: %w", f.Name(), err)
		}
	}
	return nil
}

// Remote lists the files of the memory that are on FUSE mounts.
func (m *Memory) Remote() (list []*os.File) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range sourcesOf(m.pieces) {
		if s.remote {
			list = append(list, s.file)
		}
	}
	return list
}

// Written returns the pages that are not holes of the files behind the memory.
func (m *Memory) Written() (*wss.Bitmap, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	runs, err := dataOf(m.pieces)
	return bitmapOf(runs, m.size/pageSize), err
}
