package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A keepRig is a server on a model of the kernel, and requests made by hand.
type keepRig struct {
	*handRig
	k     *modelKernel
	store *fakeStore
	of    spec
}

func newKeepRig(t *testing.T, o Options) *keepRig {
	x := spec{Name: "a", Pages: 64, Seed: 1, WS: [][2]uint64{{0, 16}}}
	store := newFakeStore(x)
	store.piece = 4
	r := &keepRig{store: store, of: store.specs[0]}
	t.Cleanup(func() { // after the server's end
		r.k.mu.Lock()
		defer r.k.mu.Unlock()
		for _, fault := range r.k.faults {
			t.Error(fault)
		}
	})
	r.handRig = newHandRig(t, store, o)
	r.k = newModelKernel(r.Server)
	r.kernel = r.k
	r.raw.Forget(r.id, 1) // what newHandRig looked up
	return r
}

// find looks up the memory of the image, or of a clone, as the kernel does.
func (r *keepRig) find(clone string) uint64 {
	r.t.Helper()
	e := r.tree.entry("a")
	if e == nil {
		r.t.Fatal("the checkpoint is not there")
	}
	want := e.child(fileMemory)
	if clone != "" {
		want = e.cloneChild(clone, fileMemory)
	}
	id := r.tree.lookup(want).id
	r.k.lookup(id, r.of, clone != "")
	return id
}

// openFile opens a file that was looked up.
func (r *keepRig) openFile(id uint64) {
	r.t.Helper()
	in := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}}
	in.Uid = 1
	if st := r.raw.Open(nil, &in, new(fuse.OpenOut)); !st.Ok() {
		r.t.Fatal("open: ", st)
	}
}

// closeFile closes a file opens times; the kernel then evicts its inode. It returns how many lookups there
// are to forget.
func (r *keepRig) closeFile(id uint64, opens int) (lookups uint64) {
	for range opens {
		r.raw.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: id}})
	}
	r.k.mu.Lock()
	r.k.inodes[id].opens = 0
	r.k.mu.Unlock()
	return uint64(r.k.evict(id))
}

// lock locks a page, as a READ does that the server has not received yet.
func (r *keepRig) lock(id, gfn uint64) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	r.k.inodes[id].locked[gfn] = true
}

func (r *keepRig) unlock(id, gfn uint64) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	delete(r.k.inodes[id].locked, gfn)
	r.k.turn.Broadcast()
}

// until waits for what the model shows of a file.
func (r *keepRig) until(what string, id uint64, ok func(*modelInode) bool) {
	r.t.Helper()
	eventually(r.t, what, func() bool {
		r.k.mu.Lock()
		defer r.k.mu.Unlock()
		return ok(r.k.inodes[id])
	})
}

// waitsAtGate says whether somebody waits for the pushes into a memory file to end.
func waitsAtGate(m *memoryFile) bool {
	if m.gate.TryRLock() {
		m.gate.RUnlock()
		return false
	}
	return true
}

func isClosed[T any](done <-chan T) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// A drop that comes to a clone when the kernel has forgotten it, and knows another of its number, waits for
// the pushes into that one.
func TestDropOfForgottenClone(t *testing.T) {
	r := newKeepRig(t, Options{Policy: PolicyWorkingSetFull, Workers: 1})
	main, x := r.find(""), r.find("x")
	r.openFile(main)
	r.openFile(x)
	r.lock(main, 50) // a READ: the drop of the image's own file waits for it
	dropped := make(chan error, 1)
	go func() { dropped <- r.Drop(t.Context(), "a") }()
	r.until("the drop has begun", main, func(i *modelInode) bool { return i.drops == 1 })

	lookups := r.closeFile(x, 1)
	r.raw.Forget(x, lookups)
	if again := r.find("x"); again != x {
		t.Fatalf("another number: %d, %d", x, again)
	}
	r.lock(x, 15) // another READ: the restore waits for it in a push
	opened := make(chan struct{})
	go func() { r.openFile(x); close(opened) }()
	r.until("a push waits", x, func(i *modelInode) bool { return i.storing == 1 })

	r.unlock(main, 50)
	m := r.memoryOf(r.tree.node(x))
	eventually(t, "the drop comes to the clone", func() bool {
		r.k.mu.Lock()
		defer r.k.mu.Unlock()
		return waitsAtGate(m) || r.k.inodes[x].drops > 0
	})
	r.unlock(x, 15)
	<-opened
	if err := <-dropped; err != nil {
		t.Error(err)
	}
	r.closeFile(x, 1)
	r.closeFile(main, 1)
}

// A push goes on when its checkpoint has been removed and the kernel has forgotten all of it. The checkpoint
// that is there again has the same numbers, and knows of the push.
func TestPushBeforeRemoval(t *testing.T) {
	for _, clone := range []string{"", "x"} {
		t.Run("clone "+clone, func(t *testing.T) {
			r := newKeepRig(t, Options{Policy: PolicyLazy, Workers: 1, CapBytes: 1})
			id := r.find(clone)
			r.openFile(id)
			r.store.set()
			if err := r.Refresh(t.Context()); err != nil { // nobody pushes
				t.Fatal(err)
			}
			stalled, goOn := r.stallSecondPush()
			r.policy.Store(int64(PolicyWorkingSetFull))
			r.openFile(id) // capped: it returns, and the restore goes on
			<-stalled
			r.raw.Forget(id, r.closeFile(id, 2))

			r.policy.Store(int64(PolicyLazy))
			r.store.set(r.of)
			if err := r.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if again := r.find(clone); again != id {
				t.Fatalf("another number: %d, %d", id, again)
			}
			r.openFile(id)
			m := r.memoryOf(r.tree.node(id))
			done := make(chan struct{})
			go func() {
				defer close(done)
				if clone != "" {
					r.k.discard(r.raw, id, 0, 16)
				} else if err := r.StartRecord(t.Context(), "a"); err != nil {
					t.Error(err)
				}
			}()
			eventually(t, "it waits for the push, or does not", func() bool {
				return isClosed(done) || waitsAtGate(m)
			})
			close(goOn)
			<-done
		})
	}
}

// stallSecondPush has the second push from now on wait.
func (r *keepRig) stallSecondPush() (stalled, goOn chan struct{}) {
	stalled, goOn = make(chan struct{}), make(chan struct{})
	pushes := 0
	r.k.stall = func(uint64) {
		if pushes++; pushes == 2 {
			close(stalled)
			<-goOn
		}
	}
	return stalled, goOn
}

// A FORGET that is worked off late, when the file is known again and was read, does not end a clone: a drop
// still finds what was read.
func TestLateForget(t *testing.T) {
	r := newKeepRig(t, Options{Policy: PolicyLazy})
	x := r.find("x")
	r.openFile(x)
	n := r.tree.forget(x, r.closeFile(x, 1))
	if n == nil {
		t.Fatal("not forgotten")
	}
	r.find("x")
	r.openFile(x)
	r.k.touch(r.raw, x, 7)
	r.raw.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: x}})
	r.forgotten(n)
	if err := r.StartRecord(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got := r.k.view(x).cached; len(got) > 0 {
		t.Errorf("pages are in the page cache when a record begins: %v", got)
	}
}

// A clone that the kernel forgets while something is pushed into it ends with that; one that is known again
// then does not.
func TestForgottenWhileBusy(t *testing.T) {
	for _, again := range []bool{false, true} {
		r := newKeepRig(t, Options{Policy: PolicyWorkingSetFull, Workers: 1, CapBytes: 1})
		x := r.find("x")
		stalled, goOn := r.stallSecondPush()
		r.openFile(x)
		<-stalled
		r.raw.Forget(x, r.closeFile(x, 1))
		if again {
			r.find("x")
		}
		close(goOn)
		e := r.tree.entry("a")
		busy := func() bool { e.mu.Lock(); defer e.mu.Unlock(); return e.busy > 0 }
		eventually(t, "nobody is at work", func() bool { return !busy() })
		if err := r.StartRecord(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if again {
			if got := r.k.view(x).cached; len(got) > 0 {
				t.Errorf("pages are in the page cache when a record begins: %v", got)
			}
			r.raw.Forget(x, r.closeFile(x, 0))
		}
		if got := len(e.memories()); got != 0 {
			t.Errorf("known again: %v: %d files when it is forgotten", again, got)
		}
	}
}
