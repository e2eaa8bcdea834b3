package perf

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/firecracker"
	"github.com/thawfs/thaw/tests/internal/image"
)

// TestUffd compares pages that come through userfaultfd with pages that come through the mount, on the
// same store and in turn: faults on pages at random, and a working set from a cold disk.
func TestUffd(t *testing.T) {
	cli.NeedFUSE(t)
	b := newBench(t)
	store := filepath.Join(b.dir, "store")
	cli.OK(t, "import", store, b.image, "--name", "vm")
	b.measureUffdFaults(store)
	b.measureUffdSet(store)
	b.print()
}

// uffdVM starts a VM that a pager serves, on one CPU.
func uffdVM(t *testing.T, p *cli.Pager, b *bench, r firecracker.Request) *firecracker.VM {
	t.Helper()
	vm := firecracker.Start(t)
	vm.Must(t, firecracker.Request{Op: "pin", CPU: 0})
	r.Op, r.Socket, r.Source = "hand", p.Socket, b.image
	if a, err := vm.Call(r); err != nil || strings.HasPrefix(a.Error, "userfaultfd:") {
		t.Skipf("%v%v", a.Error, err)
	} else if a.Error != "" {
		t.Fatal(a.Error)
	}
	return vm
}

// measureUffdFaults touches so few of the pages that most are not brought along with another one.
func (b *bench) measureUffdFaults(store string) {
	var own, ownSlow, through, mounted, mountedSlow []float64
	for i := range b.rounds {
		pages := b.sample(max(len(b.data)/64, 16), uint64(i))
		b.round("uffd", i, func(t *testing.T) {
			warm(t, store)
			p := cli.Uffd(t, store, "vm", "--restore=lazy")
			vm := uffdVM(t, p, b, firecracker.Request{})
			ns := vm.Must(t, firecracker.Request{Op: "touch", GFNs: pages, Times: true}).NS
			own, ownSlow = append(own, quantile(ns, 0.5)/1000), append(ownSlow, quantile(ns, 0.99)/1000)
			vm.End(t)
			p.Report()
		})
		b.round("uffd-of-mount", i, func(t *testing.T) {
			warm(t, store)
			m := cli.Mount(t, store, "--restore=lazy", "--record-window=1ns")
			p := cli.Uffd(t, m.Dir, "vm", "--restore=lazy")
			vm := uffdVM(t, p, b, firecracker.Request{})
			ns := vm.Must(t, firecracker.Request{Op: "touch", GFNs: pages, Times: true}).NS
			through = append(through, quantile(ns, 0.5)/1000)
			vm.End(t)
			p.Report()
		})
		b.round("uffd-peer", i, func(t *testing.T) {
			warm(t, store)
			m := cli.Mount(t, store, "--restore=lazy", "--record-window=1ns")
			ns := touchTimes(t, m.Client(t), m.Path("vm/memory"), pages)
			mounted = append(mounted, quantile(ns, 0.5)/1000)
			mountedSlow = append(mountedSlow, quantile(ns, 0.99)/1000)
		})
	}
	b.add("fault through userfaultfd, p50", "us", own, mounted, 0, "peer: through the mount")
	b.add("fault through userfaultfd, p99", "us", ownSlow, mountedSlow, 0, "")
	b.add("the same, the memory on a mount, p50", "us", through, mounted, 0, "")
}

// measureUffdSet brings a working set from packs that are not in the page cache.
func (b *bench) measureUffdSet(store string) {
	set := b.workingSet()
	b.setWorkingSet(store, set)
	packs, err := filepath.Glob(filepath.Join(store, "packs", "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	var own, mounted []float64
	for i := range b.rounds {
		b.round("uffd-set", i, func(t *testing.T) {
			p := cli.Uffd(t, store, "vm")
			chill(t, client.Start(t, nil), packs...)
			vm := uffdVM(t, p, b, firecracker.Request{})
			for here := uint64(0); here < uint64(len(set)); {
				here = vm.Must(t, firecracker.Request{Op: "resident"}).Pages
			}
			vm.Must(t, firecracker.Request{Op: "touch", GFNs: set})
			vm.End(t)
			r := p.Report()
			if r.Faults > 0 {
				t.Errorf("%d faults on pages of the set", r.Faults)
			}
			own = append(own, r.SetSeconds*1e3)
		})
		b.round("uffd-set-peer", i, func(t *testing.T) {
			m := cli.Mount(t, store, "--restore=working-set-full")
			c := m.Client(t)
			chill(t, c, packs...)
			mounted = append(mounted, float64(c.Open(t, m.Path("vm/memory"), mapped).Nanos)/1e6)
		})
	}
	what := fmt.Sprintf("set of %d MiB through userfaultfd, cold", len(set)*image.PageSize>>20)
	b.add(what, "ms", own, mounted, 0, "peer: open on the mount, working-set-full")
}
