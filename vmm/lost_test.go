package vmm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/boot"
	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/vmm/vcpu"
)

// changedPages returns the gfns of checked pages that differ between two checkpoints: the guest
// certainly reads them again.
func changedPages(t *testing.T, a, b string) []uint64 {
	t.Helper()
	x, err := os.ReadFile(filepath.Join(a, state.MemoryFile))
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(filepath.Join(b, state.MemoryFile))
	if err != nil {
		t.Fatal(err)
	}
	var list []uint64
	for off := 0; off < len(x); off += pageSize {
		// The first word of a checked page names its frame.
		if gfn := binary.LittleEndian.Uint64(x[off:]) & (1<<40 - 1); gfn == uint64(off/pageSize) &&
			string(x[off:off+pageSize]) != string(y[off:off+pageSize]) {
			list = append(list, gfn)
		}
	}
	if len(list) == 0 {
		t.Fatal("no page changed")
	}
	return list
}

// Two checkpoints of one machine.
func twoCheckpoints(t *testing.T) (older, newer string) {
	t.Helper()
	m := newTestMachine(t, spec("heap", "set", "1MiB", "cold", "0"), testMemory)
	runUntil(t, m, 5000)
	older = checkpoint(t, m)
	runUntil(t, m, m.ports.snapshot().Done+5000)
	return older, checkpoint(t, m)
}

func patch(t *testing.T, dir string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, state.MemoryFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func TestGuestFindsAWrongByte(t *testing.T) {
	older, newer := twoCheckpoints(t)
	gfn := changedPages(t, older, newer)[0]
	page := make([]byte, pageSize)
	f, err := os.Open(filepath.Join(newer, state.MemoryFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(page, int64(gfn)*pageSize); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int{3, 8, 1000, pageSize - 1} {
		patch(t, newer, int64(gfn)*pageSize+int64(off), []byte{page[off] ^ 0x10})
		res := restoreChild(t, childJob{Dir: newer, For: 20 * time.Second}, nil)
		patch(t, newer, int64(gfn)*pageSize+int64(off), page[off:off+1])
		w := res.WrongByte
		if w == nil || w.GFN != gfn || w.Offset != uint64(off)&^7 || res.Report.End != endFailed {
			t.Errorf("offset %d of gfn %d: %q %+v", off, gfn, res.Err, w)
			continue
		}
		if want := uint64(0x10) << (off % 8 * 8); w.Expected^w.Found != want {
			t.Errorf("offset %d: expected %#x, found %#x", off, w.Expected, w.Found)
		}
	}
}

func TestGuestFindsZeros(t *testing.T) {
	older, newer := twoCheckpoints(t)
	gfn := changedPages(t, older, newer)[1]
	patch(t, newer, int64(gfn)*pageSize, make([]byte, pageSize))
	res := restoreChild(t, childJob{Dir: newer, For: 20 * time.Second}, nil)
	if res.WrongByte == nil || res.WrongByte.GFN != gfn || res.WrongByte.Found != 0 {
		t.Errorf("gfn %d: %q %+v", gfn, res.Err, res.WrongByte)
	}
}

// An old version of a page is wrong, too.
func TestGuestFindsAnOldPage(t *testing.T) {
	older, newer := twoCheckpoints(t)
	gfn := changedPages(t, older, newer)[0]
	page := make([]byte, pageSize)
	f, err := os.Open(filepath.Join(older, state.MemoryFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(page, int64(gfn)*pageSize); err != nil {
		t.Fatal(err)
	}
	patch(t, newer, int64(gfn)*pageSize, page)
	res := restoreChild(t, childJob{Dir: newer, For: 20 * time.Second}, nil)
	if res.WrongByte == nil || res.WrongByte.GFN != gfn || !strings.Contains(res.Err, "version") {
		t.Errorf("gfn %d: %q %+v", gfn, res.Err, res.WrongByte)
	}
}

// The same for the pages with the versions: all pages of the guest except its own data are old.
func TestGuestFindsOldTables(t *testing.T) {
	older, newer := twoCheckpoints(t)
	l, err := loadDir(newer, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	first := boot.GuestRAM(l.facts.Regions).First
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(older, state.MemoryFile))
	if err != nil {
		t.Fatal(err)
	}
	patch(t, newer, int64(first)*pageSize, b[first*pageSize:])
	res := restoreChild(t, childJob{Dir: newer, For: 20 * time.Second}, nil)
	w := res.WrongByte
	if w == nil {
		t.Fatalf("nothing was found: %q", res.Err)
	}
	// Usually the root page is found to be wrong, by its version or, if the older checkpoint was made
	// in the middle of a change, by its hash. If the newer one was, it may be the current page.
	if w.GFN == first && w.Offset > 8 || w.GFN != first && w.Offset != 0 {
		t.Errorf("root page is gfn %d: %q", first, res.Err)
	}
}

// Truncating a mapped file is the simplest way to lose memory: pages beyond its end cannot be read,
// like those of a dead server.
func TestMemoryLost(t *testing.T) {
	for _, c := range []struct {
		name  string
		pages uint64 // what is left of the file
	}{
		{"checked pages", 0}, // replaced by the first of them
		{"everything", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := checkpointed(t, spec("heap", "set", "1MiB", "cold", "0"), testMemory, 1000)
			l, err := loadDir(dir, testLog(t))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if c.pages == 0 {
				c.pages = boot.GuestRAM(l.facts.Regions).First + 10
			}
			if err := os.Truncate(filepath.Join(dir, state.MemoryFile), int64(c.pages)*pageSize); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if err := l.Start(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err = l.Wait(ctx)
			var lost *ram.LostError
			if !errors.As(err, &lost) {
				t.Fatalf("end: %v", err)
			}
			if lost.Known && lost.GFN < c.pages {
				t.Errorf("gfn %d is named, it is there: %v", lost.GFN, lost)
			}
			t.Logf("after %v: %v", time.Since(begin), lost)
		})
	}
}

func TestCheckpointOfLostMemory(t *testing.T) {
	dir := checkpointed(t, spec("idle"), testMemory, 1)
	l, err := loadDir(dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Truncate(filepath.Join(dir, state.MemoryFile), testMemory/2); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "x")
	_, err = l.Checkpoint(t.Context(), target)
	var lost *ram.LostError
	if !errors.As(err, &lost) {
		t.Errorf("checkpoint: %v", err)
	}
	wantEmpty(t, filepath.Dir(target))
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		t.Errorf("%s was left behind", filepath.Join(dir, e.Name()))
	}
}

// A disk that gets full during a checkpoint: no partial checkpoint is visible, and the guest continues.
func TestCheckpointToAFullDisk(t *testing.T) {
	m := newTestMachine(t, spec("heap", "set", "4MiB"), testMemory)
	runUntil(t, m, 1000)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("needs the right to mount a small tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if _, err := m.Checkpoint(t.Context(), filepath.Join(dir, "x")); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("checkpoint: %v", err)
	}
	wantEmpty(t, dir)
	runUntil(t, m, m.ports.snapshot().Done+1000)
	if _, err := m.Checkpoint(t.Context(), filepath.Join(t.TempDir(), "x")); err != nil {
		t.Errorf("checkpoint after a failed one: %v", err)
	}
}

func TestCheckpointRefusals(t *testing.T) {
	m := newTestMachine(t, spec("idle"), ram.MinMemory)
	runUntil(t, m, 1)
	dir := t.TempDir()
	for what, path := range map[string]string{"an existing directory": dir,
		"a missing parent": filepath.Join(dir, "no", "where")} {
		if _, err := m.Checkpoint(t.Context(), path); err == nil {
			t.Errorf("checkpoint to %s worked", what)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Checkpoint(ctx, filepath.Join(dir, "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	wantEmpty(t, dir)
	runUntil(t, m, m.ports.snapshot().Done+1)
}

func TestLoadRefusals(t *testing.T) {
	dir := checkpointed(t, spec("idle"), ram.MinMemory, 1)
	memory := filepath.Join(dir, state.MemoryFile)
	if _, err := loadDir(filepath.Join(dir, "nowhere"), testLog(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := os.Truncate(memory, ram.MinMemory-pageSize); err != nil {
		t.Fatal(err)
	}
	_, err := loadDir(dir, testLog(t))
	if err == nil || !strings.Contains(err.Error(), "the state describes") {
		t.Errorf("short memory: %v", err)
	}
	if err := os.Remove(memory); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(memory, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := loadDir(dir, testLog(t)); err == nil {
		t.Error("memory is a directory and was loaded")
	}
}

// If one vCPU loses a page, or the watcher sees that the mount is dead, all vCPUs stop.
func TestTwoVCPUsLoseMemory(t *testing.T) {
	dir := checkpointed(t, spec("pair"), testMemory, 20)
	s := serve(t, dir)
	l, err := loadDir(s.mnt, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := l.watch()
	defer w.stop()
	runUntil(t, l.Machine, l.ports.snapshot().Done+2)
	s.kill()
	err = l.Wait(withTimeout(t, 20*time.Second))
	var lost *ram.LostError
	if !errors.As(err, &lost) {
		t.Fatalf("end: %v", err)
	}
	if err := l.quiesce(stuckTime); err != nil {
		t.Error(err)
	}
	t.Log(err)
}

// For every error of a vCPU the cause is searched for, but not for a normal end.
func TestSuspects(t *testing.T) {
	for _, err := range []error{guestDone{}, &WrongByteError{}, &ram.LostError{},
		device.ErrPowerOff, fmt.Errorf("port 0x64: %w", device.ErrReset)} {
		if f := suspect(err); f != nil {
			t.Errorf("%v is suspect", err)
		}
	}
	for _, err := range []error{vcpu.ErrFault, errors.New("an exit for no reason"),
		fmt.Errorf("exit: %w", &fault{sign: "x"})} {
		if f := suspect(err); f == nil {
			t.Errorf("%v is not suspect", err)
		}
	}
}
