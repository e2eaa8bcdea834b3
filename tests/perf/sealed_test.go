package perf

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
)

// TestSealed compares a sealed store with one that is not: demand faults from mounts of both, in turn, and
// imports and repackings. What the table calls the peer is the store that is not sealed. It asserts nothing
// about the figures.
//
//	go test ./tests/perf -run 'TestSealed$' -v -perf [-image FILE]
func TestSealed(t *testing.T) {
	cli.NeedFUSE(t)
	b := newBench(t)
	key := filepath.Join(b.dir, "key")
	cli.OK(t, "key", "new", key)
	kinds := []*sealedKind{{name: "sealed", flags: []string{"--key-file", key}}, {name: "plain"}}
	for i := range b.rounds {
		for k := range kinds {
			kinds[(i+k)%2].make(b)
		}
	}
	for i := range b.rounds {
		pages := b.sample(b.samples, uint64(i))
		for k := range kinds {
			kinds[(i+k)%2].fault(b, i, pages)
		}
	}
	s, p := kinds[0], kinds[1]
	b.add("import, sealed", "s", s.imports, p.imports, 0, "peer: the same, not sealed")
	b.add("repack, sealed", "s", s.repacks, p.repacks, 0, "")
	b.add("lazy fault, sealed, p50", "us", s.p50, p.p50, 1.2, "")
	b.add("lazy fault, sealed, p99", "us", s.p99, p.p99, 1.2, "")
	b.add("lazy fault, packed, sealed, p50", "us", s.packed50, p.packed50, 1.2, "")
	b.add("lazy fault, packed, sealed, p99", "us", s.packed99, p.packed99, 1.2, "")
	b.print()
}

// sealedKind is a kind of store, and what was measured of it.
type sealedKind struct {
	name          string
	flags         []string
	store, packed string // as imported, and repacked

	imports, repacks             []float64
	p50, p99, packed50, packed99 []float64
}

// make imports and repacks the image.
func (k *sealedKind) make(b *bench) {
	b.t.Helper()
	dir := b.t.TempDir()
	k.store, k.packed = filepath.Join(dir, "store"), filepath.Join(dir, "packed")
	start := time.Now()
	cli.OK(b.t, append([]string{"import", k.store, b.image, "--name", "vm"}, k.flags...)...)
	k.imports = append(k.imports, time.Since(start).Seconds())
	cli.OK(b.t, append([]string{"import", k.packed, b.image, "--name", "vm"}, k.flags...)...)
	start = time.Now()
	cli.OK(b.t, append([]string{"repack", k.packed}, k.flags...)...)
	k.repacks = append(k.repacks, time.Since(start).Seconds())
}

// fault touches pages on mounts of the stores that were made last.
func (k *sealedKind) fault(b *bench, i int, pages []uint64) {
	for _, x := range []struct {
		what, store string
		p50, p99    *[]float64
	}{{"fault-", k.store, &k.p50, &k.p99}, {"packed-fault-", k.packed, &k.packed50, &k.packed99}} {
		b.round(x.what+k.name, i, func(t *testing.T) {
			warm(t, x.store)
			flags := append([]string{"--restore=lazy", "--record-window=10m", "--repack=off"}, k.flags...)
			m := cli.Mount(t, x.store, flags...)
			ns := touchTimes(t, m.Client(t), m.Path("vm/memory"), pages)
			*x.p50 = append(*x.p50, quantile(ns, 0.5)/1000)
			*x.p99 = append(*x.p99, quantile(ns, 0.99)/1000)
		})
	}
}
