package perf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/fleet"
	"github.com/thawfs/thaw/tests/qemu"
)

var (
	fleetMachines = flag.Int("fleet.machines", 10, "machines of the fleet")
	fleetStates   = flag.Int("fleet.states", 5, "states of each")
	fleetMiB      = flag.Int64("fleet.mib", 256, "memory of each, in MiB")
	fleetSeed     = flag.Uint64("fleet.seed", 1, "which fleet")
	fleetRoot     = flag.String("fleet.root", "/usr", "the directory whose files are in page caches")
	fleetRestic   = flag.String("fleet.restic", "auto,max",
		"compressions of restic (max takes long); \"\": without it")
)

// keeper is a program that keeps checkpoints: thaw or a peer.
type keeper struct {
	name  string
	store string                                 // its directory
	save  func(name, memory string) *exec.Cmd    // one more checkpoint
	back  func(name, dir string) *exec.Cmd       // a checkpoint into a new directory
	found func(dir, memory string) (path string) // where it is there
	spent effort                                 // on saving, all together
	last  effort                                 // on the last one
	gave  effort                                 // on one restore
	sizes []int64                                // of the store, after each
}

// thawKeeper keeps checkpoints in a store.
func thawKeeper(name, dir string, flags ...string) *keeper {
	return &keeper{
		name: name, store: dir,
		save: func(name, memory string) *exec.Cmd {
			return cli.Command(append([]string{"import", dir, memory, "--name", name}, flags...)...)
		},
		back:  func(name, to string) *exec.Cmd { return cli.Command("export", dir, name, to) },
		found: func(to, _ string) string { return filepath.Join(to, "memory") },
	}
}

// resticKeeper keeps them in a repository of restic: on the same disk, without its cache, each machine a
// host of its own, whose file has always the same path. Nil where there is no restic.
func resticKeeper(t *testing.T, name, dir, compression string) *keeper {
	t.Helper()
	if _, err := exec.LookPath("restic"); err != nil {
		t.Logf("no figures of restic: %v", err)
		return nil
	}
	restic := func(args ...string) *exec.Cmd {
		cmd := exec.Command("restic", append([]string{"-r", dir, "--no-cache", "-q"}, args...)...)
		cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=fleet", "RESTIC_COMPRESSION="+compression,
			"HOME="+t.TempDir())
		return cmd
	}
	spend(t, restic("init"), time.Minute, io.Discard)
	return &keeper{
		name: name, store: dir,
		save: func(name, memory string) *exec.Cmd {
			machine, _, _ := strings.Cut(name, ".")
			return restic("--compression", compression, "backup", "--host", machine, "--tag", name, memory)
		},
		back: func(name, to string) *exec.Cmd {
			return restic("restore", "latest", "--tag", name, "--target", to)
		},
		found: func(to, memory string) string { return filepath.Join(to, memory) },
	}
}

// keep saves a checkpoint.
func (k *keeper) keep(b *bench, name, memory string) {
	b.t.Helper()
	k.last = spend(b.t, k.save(name, memory), 10*time.Minute, io.Discard)
	k.spent.add(k.last)
	k.sizes = append(k.sizes, diskBytes(b.t, k.store))
}

// giveBack restores a checkpoint, and requires that it is the one that was saved.
func (k *keeper) giveBack(t *testing.T, name, memory string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "back")
	k.gave = spend(t, k.back(name, dir), 10*time.Minute, io.Discard)
	if err := sameFile(k.found(dir, memory), memory); err != nil {
		t.Errorf("%s: %v", k.name, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// sameFile fails if two files do not have the same bytes.
func sameFile(path, want string) error {
	one, err := os.Open(path)
	if err != nil {
		return err
	}
	defer one.Close()
	two, err := os.Open(want)
	if err != nil {
		return err
	}
	defer two.Close()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := io.ReadFull(one, a)
		m, werr := io.ReadFull(two, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("%s differs from %s at byte %d or soon after", path, want, off)
		}
		off += int64(n)
		if err != nil || werr != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return errors.Join(err, werr)
		}
	}
}

// keepers are thaw and its peers, with empty stores.
func (b *bench) keepers() (all []*keeper) {
	all = append(all, thawKeeper("thaw", filepath.Join(b.dir, "thaw")),
		thawKeeper("thaw, fast", filepath.Join(b.dir, "thaw-fast"), "--profile", "fast"))
	compressions := *fleetRestic
	if !*full {
		compressions = "auto"
	}
	for _, c := range strings.FieldsFunc(compressions, func(r rune) bool { return r == ',' }) {
		if k := resticKeeper(b.t, "restic, "+c, filepath.Join(b.dir, "restic-"+c), c); k != nil {
			all = append(all, k)
		}
	}
	return all
}

// TestFleet keeps the checkpoints of a fleet with thaw and its peers. States come in turn, the first of
// all machines before the second of any. Everything that is restored must be what was saved.
func TestFleet(t *testing.T) {
	machines, states, size := *fleetMachines, *fleetStates, *fleetMiB<<20
	root := *fleetRoot
	if !*full {
		machines, states, size = 3, 2, 8<<20
	}
	f, err := fleet.New(fleet.Spec{Bytes: size, Seed: *fleetSeed, Root: root})
	if err != nil {
		t.Skip(err)
	}
	b := &bench{t: t, dir: t.TempDir()}
	keepers := b.keepers()
	var all []*fleet.Machine
	for i := range machines {
		all = append(all, f.Machine(i))
	}
	var n int
	for state := range states {
		for i, m := range all {
			if state > 0 {
				m.Advance()
			}
			memory := b.machineFile(i)
			if err := m.Write(memory); err != nil {
				t.Fatal(err)
			}
			b.keepAll(keepers, n, fmt.Sprintf("m%d.s%d", i, state), memory)
			n++
		}
	}
	for _, k := range keepers {
		k.giveBack(t, fmt.Sprintf("m%d.s%d", machines-1, states-1), b.machineFile(machines-1))
	}
	b.printFleet(fmt.Sprintf("%d machines of %d MiB in %d states, made of files under %s (seed %d)", machines,
		size>>20, states, root, *fleetSeed), keepers)
}

// machineFile is where the memory of a machine lies, in each of its states.
func (b *bench) machineFile(machine int) string {
	dir := filepath.Join(b.dir, fmt.Sprintf("m%d", machine))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	return filepath.Join(dir, "memory")
}

// keepAll has each keeper save a checkpoint, each time another one first: it finds less in caches.
func (b *bench) keepAll(keepers []*keeper, n int, name, memory string) {
	b.t.Helper()
	for i := range keepers {
		keepers[(n+i)%len(keepers)].keep(b, name, memory)
	}
}

// TestFleetOfGuests is TestFleet with real machines: Debian's kernel under QEMU, each with more files than
// the one before. Nothing in thaw was tuned with them.
func TestFleetOfGuests(t *testing.T) {
	if !*full {
		t.Skip("boots some machines; with -perf only")
	}
	if _, err := qemu.Find(); err != nil {
		t.Skip(err)
	}
	b := &bench{t: t, dir: t.TempDir()}
	keepers := b.keepers()
	const machines, states = 4, 3
	var last, name string
	for i := range machines {
		memories := b.guest(i, states)
		for state, memory := range memories {
			name, last = fmt.Sprintf("g%d.s%d", i, state), b.machineFile(i)
			if err := os.Rename(memory, last); err != nil {
				t.Fatal(err)
			}
			b.keepAll(keepers, i*states+state, name, last)
		}
	}
	for _, k := range keepers {
		k.giveBack(t, name, last)
	}
	b.printFleet(fmt.Sprintf("%d Debian guests of 256 MiB in %d states", machines, states), keepers)
}

// guest boots a machine and saves it some times, with work between.
func (b *bench) guest(number, states int) (memories []string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Minute)
	defer cancel()
	dir := b.t.TempDir()
	g, err := qemu.Boot(ctx, qemu.Config{
		Dir: dir, MemoryBytes: 256 << 20, PayloadBytes: int64(36+4*number) << 20,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	defer g.Close()
	for state := range states {
		mark := g.Console.Lines()
		if state > 0 {
			if err := g.Continue(ctx); err != nil {
				b.t.Fatal(err)
			}
		}
		if _, err := g.Console.WaitTicks(ctx, mark, 4+2*number); err != nil {
			b.t.Fatal(err)
		}
		saved := filepath.Join(dir, fmt.Sprint(state))
		if err := g.Save(ctx, saved); err != nil {
			b.t.Fatal(err)
		}
		memories = append(memories, filepath.Join(saved, "memory"))
	}
	return memories
}

// printFleet prints what each keeper took.
func (b *bench) printFleet(what string, keepers []*keeper) {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n%-14s %10s %8s %22s %22s %22s %9s\n", what, "", "MiB each", "thaw =",
		"saving all (CPU), s", "the last (CPU), s", "restoring one (CPU), s", "peak, MiB")
	for _, k := range keepers {
		n := len(k.sizes)
		each := float64(k.sizes[n-1]) / float64(n) / (1 << 20)
		fmt.Fprintf(&out, "%-14s %10.2f %8.2f %22s %22s %22s %9d\n", k.name, each,
			float64(keepers[0].sizes[n-1])/float64(k.sizes[n-1]), k.spent, k.last, k.gave, k.spent.Peak>>20)
	}
	b.t.Logf("\n%s", out.String())
	if *jsonFlag == "" {
		return
	}
	sizes := map[string][]int64{}
	for _, k := range keepers {
		sizes[k.name] = k.sizes
	}
	text, err := json.Marshal(sizes)
	if err == nil {
		err = os.WriteFile(*jsonFlag, text, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}
