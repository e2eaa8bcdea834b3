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

// Memory is the guest's RAM: files, mapped once as a whole, holes of the address space included.
//
// It has two lives. A machine that is started has its RAM in a memfd, mapped shared. A machine that
// is restored has the checkpoint's files mapped privately: what the guest reads comes from the page
// cache of those files, what it writes becomes its own and never reaches them. A checkpoint turns
// the first life into the second, and renews the second (remap.go).
type Memory struct {
	size    uint64 // bytes of the image, a multiple of pageSize
	mapping mapping

	mu      sync.RWMutex // held to read and write guest memory; exclusively to remap it
	pieces  []piece      // what is behind the mapping
	own     *wss.Bitmap  // unchanged pages that are the mapping's own all the same; nil: none
	before  *wss.Bitmap  // pages changed since base, but before the tracker was armed; nil: none
	tracker *tracker     // nil: nothing is tracked
	marked  bool         // the tracker counts from a mark
	base    *Base        // the checkpoint that the files are; nil: none, the machine was started
	pager   *pager       // pages come one by one in place of the files; nil: they do not
	served  *wss.Bitmap  // pages that did since base; nil: none
	past    past
}

// past is what was touched and changed up to the last remap. Nil: there was none.
type past struct{ touched, dirty *wss.Bitmap }

// Base is a checkpoint that a machine's memory is mapped from.
type Base struct {
	Dir string
	ID  [32]byte // what tells it from another checkpoint in its place; see state.ID
}

// Size is the size of the image in bytes.
func (m *Memory) Size() uint64 { return m.size }

// Address is where the memory is in this process, for KVM.
func (m *Memory) Address() uint64 { return uint64(m.mapping.addr) }

// ReadAround leaves it to the kernel what comes with a page that is fetched, as it does for any
// program that maps a file.
func (m *Memory) ReadAround() error {
	if err := m.mapping.advise(unix.MADV_NORMAL); err != nil {
		return fmt.Errorf("madvise: %w", err)
	}
	return nil
}

// ReadFiles reads whole pages as the files behind the memory have them, from a frame on. It touches
// no page of the mapping.
func (m *Memory) ReadFiles(p []byte, first uint64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, err := readPages(m.pieces, p, first)
	return err
}

// New makes zeroed RAM.
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

// closeTime is how long Close waits for those who read the memory.
const closeTime = 5 * time.Second

// Close unmaps. No vCPU may be left.
func (m *Memory) Close() error {
	if !m.lockWithin(closeTime) {
		return ErrStuck // somebody waits for a page, and would find other memory in its place
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

// lockWithin takes the lock, unless that takes too long: a reader of a page that does not come has
// it for as long as the file system pleases.
func (m *Memory) lockWithin(limit time.Duration) bool {
	for end := time.Now().Add(limit); !m.mu.TryLock(); {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// Mapped says whether the memory, or a part of it, is mapped from a checkpoint: only then it can
// be lost.
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

// WriteAt writes into RAM at a guest physical address. Also where a file could be written instead:
// only a write through the mapping is seen by the tracker.
func (m *Memory) WriteAt(p []byte, gpa int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.transfer(p, uint64(gpa), mapping.write)
}

// ReadAt reads RAM at a guest physical address, as the guest sees it. A page that cannot be read is
// a *LostError.
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
			// What could be copied has been; the page where the call stopped is the one.
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

// Scan reads which pages were touched and which of those were changed since the memory was mapped
// from its checkpoint. Both nil: it was not. The guest may run meanwhile.
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
		dirty = wss.NewBitmap(dirty.Len()) // all pages are copies: it shows in the end
	}
	if m.own != nil && m.tracker.exact() {
		// They are there because they were put there. Of these only changes are known.
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

// ScanAll is Scan since the machine was restored, however often it was saved meanwhile.
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

// Exact says whether scan counts touched pages exactly, and why not.
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

// Remote lists the files of the memory that a server has: those on FUSE mounts.
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

// Written are the pages that the files behind the memory have: those of a hole were never written.
func (m *Memory) Written() (*wss.Bitmap, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	runs, err := dataOf(m.pieces)
	return bitmapOf(runs, m.size/pageSize), err
}
