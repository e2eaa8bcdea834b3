package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
)

// fuseEnv makes a child of the test binary a server of a checkpoint directory: page by page, without
// pushes, with some damaged pages. It is a separate process, because the server of a mount must not map
// its files.
const fuseEnv = "THAW_VMM_TEST_FUSE"

type fuseJob struct {
	Dir, Mnt string
	Bad      []uint64 // gfns that cannot be read
	Delay    time.Duration
}

// serveFUSE is the child.
func serveFUSE(job string) error {
	var j fuseJob
	if err := json.Unmarshal([]byte(job), &j); err != nil {
		return err
	}
	root := &fs.Inode{}
	add := func(ctx context.Context) {
		for _, name := range []string{state.MemoryFile, state.StateFile} {
			n := &servedFile{path: filepath.Join(j.Dir, name)}
			if name == state.MemoryFile {
				n.bad, n.delay = j.Bad, j.Delay
			}
			root.AddChild(name, root.NewPersistentInode(ctx, n, fs.StableAttr{}), false)
		}
	}
	server, err := fs.Mount(j.Mnt, root, &fs.Options{OnAdd: add,
		MountOptions: fuse.MountOptions{DirectMountStrict: true, MaxReadAhead: 4096}})
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Println("ready")
	<-stop
	return server.Unmount()
}

// servedFile is a file of the mount.
type servedFile struct {
	fs.Inode
	path  string
	bad   []uint64
	delay time.Duration // of every answer
}

var _ = (fs.NodeOpener)((*servedFile)(nil))
var _ = (fs.NodeGetattrer)((*servedFile)(nil))
var _ = (fs.NodeReader)((*servedFile)(nil))

func (s *servedFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (s *servedFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	st, err := os.Stat(s.path)
	if err != nil {
		return fs.ToErrno(err)
	}
	out.Mode, out.Size = 0o444, uint64(st.Size())
	return 0
}

func (s *servedFile) Read(_ context.Context, _ fs.FileHandle, dst []byte, off int64) (
	fuse.ReadResult, syscall.Errno) {
	for _, gfn := range s.bad {
		if at := int64(gfn) * pageSize; at < off+int64(len(dst)) && at+pageSize > off {
			return nil, syscall.EIO
		}
	}
	time.Sleep(s.delay)
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	defer f.Close()
	n, err := f.ReadAt(dst, off)
	if n == 0 && err != nil {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dst[:n]), 0
}

// served mounts a checkpoint directory by a server in another process.
type served struct {
	mnt  string
	cmd  *exec.Cmd
	done chan error
}

func serve(t *testing.T, dir string, bad ...uint64) *served {
	t.Helper()
	return serveJob(t, fuseJob{Dir: dir, Bad: bad})
}

func serveJob(t *testing.T, j fuseJob) *served {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts with mount(2)")
	}
	mnt := t.TempDir()
	j.Mnt = mnt
	job, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	s := &served{mnt: mnt, cmd: exec.Command(os.Args[0]), done: make(chan error, 1)}
	s.cmd.Env = append(os.Environ(), fuseEnv+"="+string(job))
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	b := make([]byte, 16)
	n, _ := out.Read(b)
	go func() { s.done <- s.cmd.Wait() }()
	if !strings.HasPrefix(string(b[:n]), "ready") {
		t.Fatalf("the server did not start: %v", <-s.done)
	}
	return s
}

// kill is kill -9. The connection ends with the process, which nothing else holds.
func (s *served) kill() {
	_ = s.cmd.Process.Kill()
	select {
	case err := <-s.done:
		s.done <- err
	case <-time.After(10 * time.Second):
	}
}

// A complete restore from a cold mount: every page that is touched is read lazily, and no other.
func TestRestoreFromAMount(t *testing.T) {
	dir := checkpointed(t, spec("random:30", "units", "60000"), testMemory, 20000)
	s := serve(t, dir)
	cfg := Config{Log: testLog(t), Window: 10 * time.Minute, Count: true} // all of the run
	rep, err := Restore(t.Context(), s.mnt, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := rep.Restore
	if rep.End != endFinished || r.Counts == nil || r.Counts.Prefetched != 0 ||
		r.Counts.Skipped != 0 || r.Counts.Lazy != r.TouchedPages {
		t.Errorf("report %+v, %+v", r, r.Counts)
	}
	// What the guest touched is what the kernel had to read, and its page tables.
	cached := cachedPages(t, s.mnt)
	all := wss.NewBitmap(rep.GuestPages)
	all.SetRange(guest.Reserved/pageSize, tableBytes([]ram.Region{{GPA: 0, Size: testMemory}})/pageSize)
	if r.PageTablePages != all.Count() {
		t.Errorf("%d page tables read, there are %d", r.PageTablePages, all.Count())
	}
	if r.Exact && !cached.Equal(r.Touched.Or(all)) {
		t.Errorf("%d pages touched, %d read; not touched: %d, not read: %d", r.TouchedPages,
			cached.Count(), cached.AndNot(r.Touched.Or(all)).Count(),
			r.Touched.Or(all).AndNot(cached).Count())
	}
	// Again, now with those in the page cache.
	rep, err = Restore(t.Context(), s.mnt, cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := wss.Counts{Prefetched: cached.Count(), Skipped: r.TouchedPages,
		Window: rep.Restore.Counts.Window}
	if r.Exact && *rep.Restore.Counts != want {
		t.Errorf("second restore: %+v, want %+v", *rep.Restore.Counts, want)
	}
}

// cachedPages are the pages of a directory's memory that are in the page cache.
func cachedPages(t *testing.T, dir string) *wss.Bitmap {
	t.Helper()
	img, err := state.OpenImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Map()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	cached, err := m.Resident()
	if err != nil {
		t.Fatal(err)
	}
	return cached
}

// A machine that was restored from a mount is saved again, to disk.
func TestCheckpointOfAMountedImage(t *testing.T) {
	dir := checkpointed(t, spec("heap", "set", "1MiB", "units", "60000"), testMemory, 20000)
	s := serve(t, dir)
	l, err := loadDir(s.mnt, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	runUntil(t, l.Machine, 30000)
	before, _, err := l.mem.Scan()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Pause(); err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(t.TempDir(), "next")
	_, err = l.checkpoint(t.Context(), next, checkpointOptions{NoRemap: true})
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := l.mem.Scan()
	if err != nil {
		t.Fatal(err)
	}
	if n := after.Count() - before.Count(); l.exact && n > 1000 {
		t.Errorf("the checkpoint touched %d pages", n)
	}
	res := restoreChild(t, childJob{Dir: next}, nil)
	if res.Err != "" || res.Report.End != endFinished {
		t.Errorf("%q %+v", res.Err, res.Report)
	}
}

func TestServerDies(t *testing.T) {
	for _, c := range []struct {
		name    string
		program []string
	}{
		{"while pages are read", []string{"random:100", "write", "0"}},
		{"while none are needed", []string{"idle", "set", "4KiB", "period", "10ms"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := checkpointed(t, spec(c.program[0], c.program[1:]...), testMemory, 1)
			s := serve(t, dir)
			l, err := loadDir(s.mnt, testLog(t))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			w := l.watch()
			defer w.stop()
			runUntil(t, l.Machine, l.ports.snapshot().Done+100)
			begin := time.Now()
			s.kill()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err = l.Wait(ctx)
			var lost *ram.LostError
			if !errors.As(err, &lost) {
				t.Fatalf("end: %v", err)
			}
			t.Logf("after %v: %v", time.Since(begin), err)
		})
	}
}

// A server that neither answers nor dies: a machine that is stopped reports that instead of hanging,
// and ends when the server ends.
func TestServerHangs(t *testing.T) {
	dir := checkpointed(t, spec("random:100", "write", "0"), testMemory, 1)
	s := serve(t, dir)
	l, err := loadDir(s.mnt, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer s.kill() // before Close, which otherwise waits for the server
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	<-l.begun
	// The first instruction is on a page that does not come.
	if err := l.Wait(withTimeout(t, 200*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the machine ended: %v", err)
	}
	// The watcher notices the silence, but does not end the machine.
	w := l.watch()
	defer w.stop()
	limit := time.Now().Add(time.Minute)
	for w.silent() < watchTime/4 {
		if time.Now().After(limit) {
			s.kill() // threads that wait for it can end then, and the mount is removed with the test
			t.Fatal("the watcher does not ask, or has its answer")
		}
		time.Sleep(time.Millisecond) // between two questions
	}
	if !l.is(phaseRunning) {
		t.Errorf("the machine ended: %v", l.Wait(t.Context()))
	}
	l.Stop()
	if err := l.quiesce(100 * time.Millisecond); !errors.Is(err, ram.ErrStuck) {
		t.Errorf("a machine whose server hangs: %v", err)
	}
	s.kill()
	if err := l.quiesce(20 * time.Second); err != nil {
		t.Errorf("the server is dead: %v", err)
	}
}

func withTimeout(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// A page that cannot be read ends the guest with its number, when it is needed and not before.
func TestUnreadablePage(t *testing.T) {
	older, newer := twoCheckpoints(t)
	gfn := changedPages(t, older, newer)[0]
	s := serve(t, newer, gfn)
	_, err := Restore(t.Context(), s.mnt, Config{Log: testLog(t), For: 30 * time.Second})
	var lost *ram.LostError
	if !errors.As(err, &lost) {
		t.Fatalf("end: %v", err)
	}
	if lost.Known && lost.GFN != gfn {
		t.Errorf("gfn %d cannot be read: %v", gfn, err)
	}
	t.Log(err)
}
