package perf

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest/retier"
	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/proc"
)

// mapped is how a VMM maps guest memory.
var mapped = client.Map{Private: true, Writable: true, Random: true}

// warm reads all packs of a store, so that they lie in the host's page cache.
func warm(t *testing.T, store string) {
	t.Helper()
	if _, err := cli.Tool(t, time.Minute, "sh", "-c", `cat "$0"/packs/* >/dev/null`, store); err != nil {
		t.Fatal(err)
	}
}

// measureFaults compares demand faults with those of the RAM server.
func (b *bench) measureFaults(what, store string, target float64, oneCPU bool) {
	var p50, p99, peer50, peer99 []float64
	for i := range b.rounds {
		pages := b.sample(b.samples, uint64(i))
		b.round("fault", i, func(t *testing.T) {
			warm(t, store)
			m := cli.Mount(t, store, "--restore=lazy", "--record-window=10m")
			pin(t, m.Pid(), oneCPU)
			ns := touchTimes(t, m.Client(t), m.Path("vm/memory"), pages)
			p50, p99 = append(p50, quantile(ns, 0.5)/1000), append(p99, quantile(ns, 0.99)/1000)
			if s := m.Stats(t, "vm"); s.LazyRequests < uint64(len(pages)) {
				t.Errorf("%d demand reads of %d pages: this is no measure of lazy faults", s.LazyRequests, len(pages))
			}
		})
		b.round("fault-peer", i, func(t *testing.T) {
			mnt, pid := mountRAM(t, b.image)
			pin(t, pid, oneCPU)
			ns := touchTimes(t, client.Start(t, nil), filepath.Join(mnt, "memory"), pages)
			peer50, peer99 = append(peer50, quantile(ns, 0.5)/1000), append(peer99, quantile(ns, 0.99)/1000)
		})
	}
	b.add(what+", p50", "us", p50, peer50, target, "peer: go-fuse from RAM")
	b.add(what+", p99", "us", p99, peer99, target, "")
}

// TestFaultsOfTiers is that part of TestFigures alone: without -perf that is enough.
func TestFaultsOfTiers(t *testing.T) {
	cli.NeedFUSE(t)
	if !*full {
		t.Skip("a part of TestFigures: with -perf only")
	}
	b := newBench(t)
	b.measureTiers()
	b.print()
}

// measureTiers compares faults of pages that are stored hot, warm and cold, each in a store of its own, in
// turn with the RAM server. So few of the pages are touched, at random, that most of them are not brought
// by a READ of another one; pages brought is how many come with a READ, by itself and by pushes behind it.
func (b *bench) measureTiers() {
	tiers := []struct {
		what  string
		tier  pack.Tier
		store string
	}{
		{what: "hot", tier: pack.TierHot}, {what: "warm", tier: pack.TierWarm}, {what: "cold", tier: pack.TierCold},
	}
	for i, x := range tiers {
		tiers[i].store = filepath.Join(b.dir, x.what)
		cli.OK(b.t, "import", tiers[i].store, b.image, "--name", "vm")
		retier.Packs(b.t, tiers[i].store, func(uint32) pack.Tier { return x.tier })
	}
	p50, p99 := make([][]float64, len(tiers)), make([][]float64, len(tiers))
	brought := make([][]float64, len(tiers))
	var peer50, peer99 []float64
	for i := range b.rounds {
		pages := b.sample(max(len(b.data)/64, 16), uint64(i))
		for k, x := range tiers {
			b.round("fault-"+x.what, i, func(t *testing.T) {
				warm(t, x.store)
				m := cli.Mount(t, x.store, "--restore=lazy", "--record-window=1ns")
				ns := touchTimes(t, m.Client(t), m.Path("vm/memory"), pages)
				p50[k], p99[k] = append(p50[k], quantile(ns, 0.5)/1000), append(p99[k], quantile(ns, 0.99)/1000)
				s := m.Stats(t, "vm")
				brought[k] = append(brought[k], float64(s.LazyPages+s.PushedPages)/float64(s.LazyRequests))
			})
		}
		b.round("fault-tiers-peer", i, func(t *testing.T) {
			mnt, _ := mountRAM(t, b.image)
			ns := touchTimes(t, client.Start(t, nil), filepath.Join(mnt, "memory"), pages)
			peer50, peer99 = append(peer50, quantile(ns, 0.5)/1000), append(peer99, quantile(ns, 0.99)/1000)
		})
	}
	for k, x := range tiers {
		b.add("fault of a "+x.what+" page, p50", "us", p50[k], peer50, map[bool]float64{true: 1.2}[k == 0],
			"peer: go-fuse from RAM")
		b.add("fault of a "+x.what+" page, p99", "us", p99[k], peer99, 0, "")
		b.add("pages that it brings, "+x.what, "", brought[k], nil, 0, "")
	}
}

// pin binds a server to the CPU of its client, where that is asked for. A fault then costs two
// switches of context and no wake-up of an idle CPU, which is slow and varies.
func pin(t *testing.T, pid int, oneCPU bool) {
	t.Helper()
	if !oneCPU {
		return
	}
	if err := proc.Pin(pid, 0); err != nil {
		t.Fatal(err)
	}
}

// touchTimes opens and maps a file and touches pages of it, on one CPU.
func touchTimes(t *testing.T, c *client.Client, path string, pages []uint64) []int64 {
	t.Helper()
	c.Must(t, client.Request{Op: "pin", CPU: 0})
	c.Open(t, path, mapped)
	a := c.Must(t, client.Request{Op: "touch", GFNs: pages, Times: true})
	if len(a.Lost) > 0 {
		t.Fatalf("%d pages are lost", len(a.Lost))
	}
	c.Close(t)
	return a.NS
}

// mountRAM serves an image from RAM by a process of its own.
func mountRAM(t *testing.T, imagePath string) (mnt string, pid int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: the peer mounts by mount(2)")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mnt = t.TempDir()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), ramEnv+"="+imagePath+":"+mnt)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = theirs
	p, err := proc.Start(cmd)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // asks it to unmount and end
		var hang *proc.HangError
		if err := p.Wait(10 * time.Second); errors.As(err, &hang) {
			t.Errorf("the RAM server: %v", err)
			_ = syscall.Unmount(mnt, syscall.MNT_DETACH)
			_ = p.Kill(5 * time.Second)
		}
		out.Close()
	})
	_ = out.SetReadDeadline(time.Now().Add(time.Minute))
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("the RAM server said %q: %v", line, err)
	}
	return mnt, p.Pid()
}
