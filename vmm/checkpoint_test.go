package vmm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// everyPage is a guest that checks every page of its memory, round by round.
func everyPage(args ...string) (string, []string) { return "random:100", args }

func newEveryPage(t *testing.T, args ...string) *Machine {
	t.Helper()
	name, args := everyPage(args...)
	return newTestMachine(t, spec(name, args...), ram.MinMemory)
}

// round lets the guest check all of its pages once more.
func round(t *testing.T, m *Machine) {
	t.Helper()
	runUntil(t, m, m.ports.snapshot().Done+m.mem.Size()/pageSize)
}

// readImage returns all bytes of a checkpoint.
func readImage(t *testing.T, dir string) []byte {
	t.Helper()
	img, err := state.OpenImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	b := make([]byte, img.Size())
	if _, err := img.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// readMemory returns all bytes of a paused machine.
func readMemory(t *testing.T, m *Machine) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := m.mem.CopyTo(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// differing returns the pages in which two images differ.
func differing(a, b []byte) *wss.Bitmap {
	d := wss.NewBitmap(uint64(len(a)) / pageSize)
	for gfn := range d.Len() {
		if !bytes.Equal(a[gfn*pageSize:(gfn+1)*pageSize], b[gfn*pageSize:(gfn+1)*pageSize]) {
			d.Set(gfn)
		}
	}
	return d
}

func mustSave(t *testing.T, m *Machine, o checkpointOptions) (string, api.CheckpointReply) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "saved")
	stats, err := m.checkpoint(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return dir, stats
}

// A running machine, started and not restored, is saved several times. It continues on the files that
// were written, finds all of its pages right, and its changes are tracked.
func TestCheckpointBecomesTheMemory(t *testing.T) {
	m := newEveryPage(t)
	if st, err := m.status(); err != nil || st.MappedFrom != "" || st.DirtyPages != nil {
		t.Errorf("status before: %+v, %v", st, err)
	}
	var dirs []string
	for i := range 4 {
		round(t, m)
		dir, stats := mustSave(t, m, checkpointOptions{Diff: i%2 == 1})
		if !stats.Remapped {
			t.Fatalf("not remapped: %s", stats.Note)
		}
		dirs = append(dirs, dir)
		if !m.mem.Mapped() || m.mem.Base().Dir != dir {
			t.Errorf("the memory is not mapped from %s", dir)
		}
		runUntil(t, m, m.ports.snapshot().Done+200)
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		touched, dirty, err := m.mem.Scan()
		if err != nil {
			t.Fatal(err)
		}
		changed := differing(readImage(t, dir), readMemory(t, m))
		if changed.Count() == 0 || changed.AndNot(dirty).Count() != 0 {
			t.Errorf("%d pages changed, %d of them are not dirty", changed.Count(),
				changed.AndNot(dirty).Count())
		}
		if dirty.AndNot(touched).Count() != 0 {
			t.Error("pages are dirty and not touched")
		}
		if touched.Count() == touched.Len() {
			t.Error("all pages are touched")
		}
		t.Logf("%+v; %d touched, %d dirty, %d changed", stats, touched.Count(), dirty.Count(),
			changed.Count())
	}
	for _, dir := range dirs {
		res := restoreChild(t, childJob{Dir: dir, For: time.Second}, nil)
		if res.Err != "" {
			t.Errorf("%s: %s", dir, res.Err)
		}
	}
}

// blockingDisk lets the guest work while a checkpoint is synced.
type blockingDisk struct {
	hostFiles
	work func()
}

func (d blockingDisk) SyncDir(path string) error {
	d.work()
	return d.hostFiles.SyncDir(path)
}

// Changes that the guest makes while a checkpoint is written to disk are in its memory afterwards, but
// not in the checkpoint.
func TestGuestGoesOnDuringSync(t *testing.T) {
	m := newEveryPage(t)
	if ok, why := canMark(t, m); !ok {
		t.Skipf("needs asynchronous userfaultfd write-protection (Linux 6.7): %s", why)
	}
	for range 3 {
		round(t, m)
		var done uint64
		disk := blockingDisk{work: func() {
			from := m.ports.snapshot().Done
			for done = from; done < from+300; done = m.ports.snapshot().Done {
				time.Sleep(time.Millisecond) // the interval of a poll
			}
		}}
		dir, stats := mustSave(t, m, checkpointOptions{fileSystem: disk})
		if !stats.Remapped || stats.CarriedPages == 0 || stats.WaitedForSync {
			t.Errorf("%+v", stats)
		}
		round(t, m)
		if res := restoreChild(t, childJob{Dir: dir, For: time.Second}, nil); res.Err != "" {
			t.Error(res.Err)
		} else if before := res.Report.Done - res.Report.Progress.Total; before >= done {
			t.Errorf("the checkpoint has %d units, of %d after the sync", before, done)
		}
	}
}

func canMark(t *testing.T, m *Machine) (bool, string) {
	t.Helper()
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := m.mem.Mark(); err != nil {
		return false, err.Error()
	}
	if err := m.mem.Forget(); err != nil {
		t.Fatal(err)
	}
	return true, ""
}

// Ten generations, each in its own process, mapped from the one before: at the same moment each is
// saved completely and as a differential checkpoint.
func TestTenGenerations(t *testing.T) {
	name, args := everyPage()
	dir := checkpointed(t, spec(name, args...), ram.MinMemory, ram.MinMemory/pageSize)
	root := t.TempDir()
	for i := range 10 {
		whole := filepath.Join(root, fmt.Sprintf("whole-%d", i))
		diff := filepath.Join(root, fmt.Sprintf("diff-%d", i))
		res := restoreChild(t, childJob{Dir: dir}, func(c *api.Client) {
			await(t, c, func(s api.Status) bool { return s.DoneNow > ram.MinMemory/pageSize })
			if _, err := c.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, r := range []api.CheckpointRequest{{Dir: whole, NoRemap: true},
				{Dir: diff, Diff: true, Stop: true}} {
				if _, err := c.Checkpoint(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
		})
		if res.Err != "" || res.Report.End != endStopped {
			t.Fatalf("generation %d: %q %+v", i, res.Err, res.Report)
		}
		if n := differing(readImage(t, whole), readImage(t, diff)).Count(); n != 0 {
			t.Fatalf("generation %d: %d pages differ between the two ways to save it", i, n)
		}
		dir = diff
		if i == 4 {
			dir = whole
		}
	}
}

func TestDifferentialRefusals(t *testing.T) {
	m := newTestMachine(t, spec("idle"), ram.MinMemory)
	runUntil(t, m, 1)
	root := t.TempDir()
	next := func() string { return filepath.Join(root, "next") }
	diff := checkpointOptions{Diff: true}
	if _, err := m.checkpoint(t.Context(), next(), diff); !errors.Is(err, errNoParent) {
		t.Errorf("without a parent: %v", err)
	}
	if _, err := m.checkpoint(t.Context(), next(), checkpointOptions{NoRemap: true}); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(root, "again")
	if _, err := m.checkpoint(t.Context(), again, diff); !errors.Is(err, errNoParent) {
		t.Errorf("after a checkpoint that it is not mapped from: %v", err)
	}
	first, _ := mustSave(t, m, checkpointOptions{})
	runUntil(t, m, m.ports.snapshot().Done+1) // so that there is a difference
	second, stats := mustSave(t, m, diff)
	if stats.Parent != first || stats.ChangedPages == 0 {
		t.Errorf("difference: %+v", stats)
	}
	// The parent is moved, together with the child and without it.
	moved := t.TempDir()
	rename(t, second, filepath.Join(moved, "second"))
	readImage(t, filepath.Join(moved, "second"))
	rename(t, first, filepath.Join(moved, filepath.Base(first)))
	readImage(t, filepath.Join(moved, "second"))
	var parent *state.ParentError
	rename(t, filepath.Join(moved, filepath.Base(first)), filepath.Join(moved, "elsewhere"))
	if _, err := loadDir(filepath.Join(moved, "second"), testLog(t)); !errors.As(err, &parent) {
		t.Errorf("without its parent: %v", err)
	}
	// Another checkpoint in its place.
	rename(t, next(), first)
	if _, err := state.OpenImage(filepath.Join(moved, "second")); !errors.As(err, &parent) {
		t.Errorf("with a wrong parent: %v", err)
	}
	// The machine is mapped from second, which is not where it was.
	if _, err := m.checkpoint(t.Context(), next(), diff); !errors.As(err, &parent) {
		t.Errorf("a difference to what is gone: %v", err)
	}
	runUntil(t, m, m.ports.snapshot().Done+2)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// If a differential checkpoint has many runs, the longest are mapped; the other pages stay private
// copies, and the machine continues.
func TestManyPieces(t *testing.T) {
	m := newEveryPage(t)
	round(t, m)
	dir, _ := mustSave(t, m, checkpointOptions{})
	for range 3 {
		round(t, m)
		next, stats := mustSave(t, m, checkpointOptions{Diff: true, pieces: 1})
		if !stats.Remapped || stats.Parent != dir {
			t.Fatalf("%+v, mapped from %s", stats, m.mem.Base().Dir)
		}
		dir = next
	}
	round(t, m)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	_, dirty, err := m.mem.Scan()
	if err != nil {
		t.Fatal(err)
	}
	changed := differing(readImage(t, dir), readMemory(t, m))
	if changed.Count() == 0 || changed.AndNot(dirty).Count() != 0 {
		t.Errorf("%d pages changed, %d of them are not dirty", changed.Count(),
			changed.AndNot(dirty).Count())
	}
	if res := restoreChild(t, childJob{Dir: dir, For: time.Second}, nil); res.Err != "" {
		t.Error(res.Err)
	}
	mustSave(t, m, checkpointOptions{})
	round(t, m)
}

// faultyDisk fails the nth call.
type faultyDisk struct {
	hostFiles
	left *atomic.Int64 // calls until the one that fails
	err  error
}

var errInjected = errors.New("injected failure")

func (d faultyDisk) fail(op string) error {
	if d.left.Add(-1) == 0 {
		return fmt.Errorf("%s: %w: %w", op, errInjected, d.err)
	}
	return nil
}

func (d faultyDisk) MkdirTemp(dir, pattern string) (string, error) {
	if err := d.fail("mkdir"); err != nil {
		return "", err
	}
	return d.hostFiles.MkdirTemp(dir, pattern)
}

func (d faultyDisk) Create(path string) (outFile, error) {
	if err := d.fail("create"); err != nil {
		return nil, err
	}
	f, err := d.hostFiles.Create(path)
	return faultyFile{f, d}, err
}

func (d faultyDisk) Rename(from, to string) error {
	if err := d.fail("rename"); err != nil {
		return err
	}
	return d.hostFiles.Rename(from, to)
}

func (d faultyDisk) SyncDir(path string) error {
	return errors.Join(d.hostFiles.SyncDir(path), d.fail("sync of a directory"))
}

type faultyFile struct {
	outFile
	d faultyDisk
}

func (f faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.d.fail("write"); err != nil {
		n, _ := f.outFile.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.outFile.WriteAt(p, off)
}

func (f faultyFile) Truncate(size int64) error {
	return errors.Join(f.d.fail("truncate"), f.outFile.Truncate(size))
}

func (f faultyFile) Sync() error { return errors.Join(f.outFile.Sync(), f.d.fail("sync")) }

func (f faultyFile) Close() error { return errors.Join(f.outFile.Close(), f.d.fail("close")) }

// Every call of a save fails once: no files are left, the guest continues, and the next save works.
func TestEveryFailureOfASave(t *testing.T) {
	for _, diff := range []bool{false, true} {
		t.Run(fmt.Sprint("diff=", diff), func(t *testing.T) {
			m := newTestMachine(t, spec("heap", "set", "1MiB", "write", "5"), ram.MinMemory)
			runUntil(t, m, 1)
			if diff {
				mustSave(t, m, checkpointOptions{})
			}
			root := t.TempDir()
			dir := filepath.Join(root, "saved")
			for n := int64(1); ; n++ {
				errno := []error{unix.EIO, unix.ENOSPC}[n%2]
				d := faultyDisk{left: new(atomic.Int64), err: errno}
				d.left.Store(n)
				_, err := m.checkpoint(t.Context(), dir, checkpointOptions{Diff: diff, fileSystem: d})
				if err == nil {
					t.Logf("a save is %d calls", n-1)
					break
				}
				if !errors.Is(err, errInjected) || !errors.Is(err, errno) {
					t.Fatalf("call %d: %v", n, err)
				}
				wantEmpty(t, root)
				runUntil(t, m, m.ports.snapshot().Done+10)
			}
			runUntil(t, m, m.ports.snapshot().Done+100)
			res := restoreChild(t, childJob{Dir: dir, For: time.Second}, nil)
			if res.Err != "" {
				t.Error(res.Err)
			}
		})
	}
}

// A machine that is stopped while its checkpoint is written to disk still has its checkpoint.
func TestStopDuringSync(t *testing.T) {
	m := newTestMachine(t, spec("idle"), ram.MinMemory)
	runUntil(t, m, 1)
	dir, stats := mustSave(t, m, checkpointOptions{fileSystem: blockingDisk{work: m.Stop}})
	// On a host that cannot track changes the machine waits, and is remapped then.
	remapped := stats.Remapped && !stats.WaitedForSync
	if err := m.Wait(context.Background()); !errors.Is(err, errStopped) || remapped {
		t.Errorf("end: %v, %+v", err, stats)
	}
	if res := restoreChild(t, childJob{Dir: dir, For: 200 * time.Millisecond}, nil); res.Err != "" {
		t.Error(res.Err)
	}
}

// TestInfoOfCheckpoint: info.json has the right addresses of a program's page tables.
func TestInfoOfCheckpoint(t *testing.T) {
	dir := checkpointed(t, spec("random:20"), testMemory, 1)
	text, err := os.ReadFile(filepath.Join(dir, state.InfoFile))
	if err != nil {
		t.Fatal(err)
	}
	var info state.Info
	if err := json.Unmarshal(text, &info); err != nil {
		t.Fatal(err)
	}
	want := &pagetable.Info{Levels: 4, Roots: []uint64{guest.Reserved}, Complete: true,
		Regions: []pagetable.Region{{GPA: 0, Bytes: testMemory, Offset: 0}}}
	if d := cmp.Diff(want, info.Paging); d != "" {
		t.Error(d)
	}
}
