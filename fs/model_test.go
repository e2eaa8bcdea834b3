package fs

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A modelKernel is the kernel's half of the page cache, as far as the server can tell: which pages
// are there and which are locked by READs. A push and a drop wait for pages that are locked, as in
// the kernel. It notes what must not happen.
type modelKernel struct {
	s *Server

	mu   sync.Mutex
	turn *sync.Cond // something was unlocked
	// stall, if it is set, is called before a push goes to the kernel.
	stall  func(id uint64)
	inodes map[uint64]*modelInode
	faults []string
}

// A modelInode is a memory file that the kernel knows. Guarded by modelKernel.mu.
type modelInode struct {
	of             spec
	clone          bool
	cached, locked map[uint64]bool
	holes          map[uint64]bool
	lookups, opens int
	owner          uint32 // 0: none yet
	drops          int
	storing        int
}

func newModelKernel(s *Server) *modelKernel {
	k := &modelKernel{s: s, inodes: map[uint64]*modelInode{}}
	k.turn = sync.NewCond(&k.mu)
	return k
}

// fault notes what must not happen. k.mu is held.
func (k *modelKernel) fault(format string, args ...any) {
	k.faults = append(k.faults, fmt.Sprintf(format, args...))
}

// pause lets others go first, by chance.
func pause() {
	for range rand.IntN(8) {
		runtime.Gosched()
	}
}

func (k *modelKernel) InodeNotifyStoreCache(id uint64, off int64, data []byte) fuse.Status {
	pause()
	if k.stall != nil {
		k.stall(id)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	ino := k.inodes[id]
	if ino == nil {
		return fuse.ENOENT
	}
	// The pusher holds the gate: the session is its own.
	if m := k.memoryFile(id); m != nil && m.sess.Load().epoch.exclusive(m.sess.Load().epoch.base) {
		k.fault("a push into an image that is recorded")
	}
	ino.storing++
	defer func() { ino.storing-- }()
	drops := ino.drops
	for i := 0; i < len(data); i += PageSize {
		gfn := uint64(off+int64(i)) / PageSize
		k.unlocked(ino, gfn)
		if ino.drops != drops {
			k.fault("page %d is pushed into a cache that was dropped meanwhile", gfn)
		}
		if ino.holes[gfn] {
			k.fault("page %d is pushed though it was discarded", gfn)
		}
		if err := ino.of.check(gfn, data[i:i+PageSize]); err != nil {
			k.fault("pushed: %v", err)
		}
		ino.cached[gfn] = true
	}
	return fuse.OK
}

// memory is the server's half of a file.
func (k *modelKernel) memoryFile(id uint64) *memoryFile {
	if n := k.s.tree.node(id); n != nil {
		return n.mem.Load()
	}
	return nil
}

// unlocked waits until a page is not locked.
func (k *modelKernel) unlocked(ino *modelInode, gfn uint64) {
	for ino.locked[gfn] {
		k.turn.Wait()
	}
}

func (k *modelKernel) InodeNotify(id uint64, _, _ int64) fuse.Status {
	pause()
	k.mu.Lock()
	defer k.mu.Unlock()
	ino := k.inodes[id]
	if ino == nil {
		return fuse.ENOENT
	}
	if ino.storing > 0 {
		k.fault("a drop while a page is pushed")
	}
	ino.drops++
	for gfn := range ino.of.Pages {
		k.unlocked(ino, gfn)
		delete(ino.cached, gfn)
	}
	return fuse.OK
}

func (k *modelKernel) EntryNotify(uint64, string) fuse.Status { pause(); return fuse.OK }

// lookup notes that the kernel was told of a file of a checkpoint.
func (k *modelKernel) lookup(id uint64, of spec, clone bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ino := k.inodes[id]
	if ino == nil {
		ino = &modelInode{
			of: of, clone: clone,
			cached: map[uint64]bool{}, locked: map[uint64]bool{}, holes: map[uint64]bool{},
		}
		k.inodes[id] = ino
	}
	ino.lookups++
	ino.opens++ // whoever looks a file up opens it: it is not evicted in between
}

// evict forgets a file that nobody has open. Its lookups are what the server is told of.
func (k *modelKernel) evict(id uint64) (lookups int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ino := k.inodes[id]
	if ino == nil || ino.opens > 0 {
		return 0
	}
	delete(k.inodes, id)
	return ino.lookups
}

// A view is what a file holds, at one moment.
type view struct {
	drops  int
	cached map[uint64]bool // or on its way
}

func (k *modelKernel) view(id uint64) (v view) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v.cached = map[uint64]bool{}
	if ino := k.inodes[id]; ino != nil {
		v.drops = ino.drops
		for gfn := range ino.cached {
			v.cached[gfn] = true
		}
		for gfn := range ino.locked {
			v.cached[gfn] = true
		}
	}
	return v
}

// touch is a page fault: a READ, if the page is not there.
func (k *modelKernel) touch(r *raw, id, gfn uint64) {
	k.mu.Lock()
	ino := k.inodes[id]
	k.unlocked(ino, gfn)
	if ino.cached[gfn] {
		k.mu.Unlock()
		return
	}
	ino.locked[gfn] = true
	hole := ino.holes[gfn]
	k.mu.Unlock()
	pause()
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: id}, Offset: gfn * PageSize, Size: PageSize}
	res, st := r.Read(nil, in, make([]byte, PageSize))
	pause()
	k.mu.Lock()
	delete(ino.locked, gfn)
	if st.Ok() {
		data := res.(*reply).data
		zero := string(data) == string(make([]byte, PageSize))
		if err := ino.of.check(gfn, data); hole && !zero || !hole && err != nil {
			k.fault("read: page %d, a hole: %v: %v", gfn, hole, err)
		}
		ino.cached[gfn] = true
		// go-fuse calls it a moment after the page is unlocked. A drop in that moment would be taken
		// for one before the READ, which costs this page a READ more.
		res.Done()
	}
	k.turn.Broadcast()
	k.mu.Unlock()
}

// restored says that a file was closed by its last machine: the server has made it the image again.
func (k *modelKernel) restored(id uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ino := k.inodes[id]
	for gfn := range ino.holes {
		if ino.cached[gfn] {
			k.fault("page %d is still zero in the page cache of a clone that was closed", gfn)
		}
	}
	clear(ino.holes)
}

// discard is fallocate(2): pages that are dropped when the server has agreed.
func (k *modelKernel) discard(r *raw, id, first, count uint64) {
	st := r.Fallocate(nil, &fuse.FallocateIn{
		InHeader: fuse.InHeader{NodeId: id}, Mode: punch,
		Offset: first * PageSize, Length: count * PageSize,
	})
	pause()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !st.Ok() {
		k.fault("discard: %v", st)
		return
	}
	ino := k.inodes[id]
	for gfn := first; gfn < first+count; gfn++ {
		k.unlocked(ino, gfn)
		delete(ino.cached, gfn)
		ino.holes[gfn] = true
	}
}
