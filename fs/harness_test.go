package fs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// roleEnv says what this test binary is to be: a client, a server, a prober, or (without it) the
// tests themselves.
const roleEnv = "THAW_FS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "client":
		os.Exit(clientMain())
	case "server":
		os.Exit(serverMain())
	case "prober":
		os.Exit(ProberMain())
	}
	code := m.Run()
	if left := leftBehind(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "left behind:", strings.Join(left, "; "))
		code = max(code, 1)
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// leftBehind lists mounts and processes of these tests that are still there.
func leftBehind() (left []string) {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(text)) {
		if m, ok := parseMountInfo(line); ok && m.fsType == fsType &&
			strings.Contains(m.mountPoint, mountPrefix()) {
			left = append(left, "mount "+m.mountPoint)
			Abort(m.mountPoint)
		}
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest)
		if len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			left = append(left, fmt.Sprintf("process %s in state %s", filepath.Dir(name), f[0]))
		}
	}
	return left
}

// mountPrefix is in the path of every mount of this process.
func mountPrefix() string { return fmt.Sprintf("thaw-fs-test-%d-", os.Getpid()) }

// mountDir makes an empty directory to mount on. Without FUSE the test is skipped.
func mountDir(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse: ", err)
	}
	dir, err := os.MkdirTemp("", mountPrefix())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil { // never RemoveAll: it would walk into a mount
			t.Error(err)
		}
	})
	return dir
}

// A bed is a mount with a server in this process, and what the tests do with it.
type bed struct {
	*Server
	t     testing.TB
	store *fakeStore
	dir   string
}

// onlyElsewhere says that a mount is in use by nothing but other mount namespaces. Tests of other packages
// run at the same time, and each namespace that one of them makes begins with all mounts of the host.
func onlyElsewhere(err error) bool {
	in, ok := errors.AsType[*InUseError](err)
	return ok && len(in.Users) > 0 && !slices.ContainsFunc(in.Users, func(u User) bool {
		return u.Kind != UserNamespace
	})
}

// mounted mounts a store for the time of a test.
func mounted(t testing.TB, store *fakeStore, o Options) *bed {
	t.Helper()
	b := mountedStore(t, store, o)
	b.store = store
	return b
}

func mountedStore(t testing.TB, store Store, o Options) *bed {
	t.Helper()
	dir := mountDir(t)
	if o.Log == nil {
		o.Log = testLog(t)
	}
	srv, err := Mount(t.Context(), store, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{Server: srv, t: t, dir: dir}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
		defer cancel()
		if err := srv.Unmount(ctx); err != nil {
			if t.Logf("%v; it is aborted", err); !onlyElsewhere(err) {
				t.Error("the mount is in use")
			}
			b.abort()
			srv.Wait()
		}
	})
	return b
}

func (b *bed) abort() {
	if err := Abort(b.dir); err != nil {
		b.t.Log(err)
	}
}

// client starts a client of the mount.
func (b *bed) client() *proc {
	b.t.Helper()
	return startClient(b.t, b.abort, nil)
}

func (b *bed) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}

func (b *bed) stats(name, clone string) Stats {
	b.t.Helper()
	st, err := b.Stats(name, clone)
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

// eventually waits for what happens soon, in the background.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(opTimeout); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", opTimeout, what)
		}
	}
}

// testLog is a log that is shown when the test fails.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, nil))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// upTo is 0..n-1.
func upTo(n uint64) []uint64 {
	s := make([]uint64, n)
	for i := range s {
		s[i] = uint64(i)
	}
	return s
}

// scattered is every step-th number below n, in an order without neighbours.
func scattered(n, step uint64) []uint64 {
	var s []uint64
	for i := uint64(0); i < n; i += step {
		s = append(s, i)
	}
	half := len(s) / 2
	mixed := make([]uint64, 0, len(s))
	for i := range half {
		mixed = append(mixed, s[half+i], s[i])
	}
	return append(mixed, s[2*half:]...)
}

// A remote is a server in a process of its own, for tests in which it dies.
type remote struct {
	t    testing.TB
	dir  string
	proc *os.Process
	kill func()
	stop func() error
}

// remoteConfig is what a server process serves.
type remoteConfig struct {
	Dir    string
	Specs  []spec
	Policy Policy
	// Hang makes READs of this page and above never end; 0: none do.
	Hang uint64
}

// serverMain is the life of a server process: until its stdin ends.
func serverMain() int {
	var c remoteConfig
	if err := json.Unmarshal([]byte(os.Getenv("THAW_FS_TEST_CONFIG")), &c); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	store := newFakeStore(c.Specs...)
	store.onRead = func(gfn uint64) error {
		if c.Hang != 0 && gfn >= c.Hang {
			select {}
		}
		return nil
	}
	srv, err := Mount(context.Background(), store, c.Dir, Options{Policy: c.Policy})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	if err := srv.Unmount(ctx); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// selfCommand runs this test binary in another role.
func selfCommand(role string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// startServer starts a server process and waits until it is ready.
func startServer(t testing.TB, c remoteConfig, attr *syscall.SysProcAttr) *remote {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := selfCommand("server", "THAW_FS_TEST_CONFIG="+string(config))
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	line, err := out.ReadString('\n')
	if line != "ready\n" {
		cmd.Wait()
		t.Fatalf("server: %s %v", line, err)
	}
	r := &remote{t: t, dir: c.Dir, proc: cmd.Process}
	ended := false
	r.stop = func() error {
		ended = true
		stdin.Close()
		return cmd.Wait()
	}
	r.kill = func() {
		ended = true
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(func() {
		if !ended {
			r.kill()
		}
		// Whatever way it ended, the mount must go.
		if _, err := FindMount(c.Dir); err == nil {
			if err := Abort(c.Dir); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

func (r *remote) abort() {
	if err := Abort(r.dir); err != nil {
		r.t.Log(err)
	}
}

func (r *remote) path(elem ...string) string {
	return filepath.Join(append([]string{r.dir}, elem...)...)
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
