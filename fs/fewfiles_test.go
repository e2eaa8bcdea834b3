package fs

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A server that may have few files open closes what nobody uses for what somebody does; an open for which
// there is no room at all is refused with an error of its own, and later ones have room again.
func TestFewFiles(t *testing.T) {
	const room = 2
	var specs []spec
	for i := range 5 {
		specs = append(specs, spec{Name: fmt.Sprint("c", i), Pages: 10, Seed: uint64(i)})
	}
	store := newFakeStore(specs...)
	store.onOpen = func(string) error {
		used := 0
		for _, x := range specs {
			_, open := store.opened(x.Name)
			used += open
		}
		if used >= room {
			return fmt.Errorf("open a pack: %w", syscall.EMFILE)
		}
		return nil
	}
	s := testServer(store)
	defer s.close()
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	open := func(name string, want fuse.Status) (release func()) {
		t.Helper()
		n := s.tree.lookup(s.tree.entry(name).child(fileMemory))
		in := fuse.InHeader{NodeId: n.id}
		if st := r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)); st != want {
			t.Errorf("open of %s: %v, want %v", name, st, want)
		}
		return func() { r.Release(nil, &fuse.ReleaseIn{InHeader: in}) }
	}
	for _, x := range specs {
		open(x.Name, fuse.OK)()
	}
	one, two := open("c0", fuse.OK), open("c1", fuse.OK)
	open("c2", fuse.Status(syscall.ENFILE))
	two()
	open("c2", fuse.OK)()
	one()
}
