package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/proc"
)

// Mounted is a mounted store with its own server.
type Mounted struct {
	Dir, Store string

	t    testing.TB
	proc *proc.Process
	log  string // file with what the server printed
	dev  string // "major:minor" of the mount; the minor is the connection's number
}

// NeedFUSE skips the test if nothing can be mounted.
func NeedFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	f.Close()
	if os.Getuid() != 0 {
		if _, err := exec.LookPath("fusermount3"); err != nil {
			t.Skip("needs root or fusermount3 to mount")
		}
	}
}

// Mount mounts a store on a new directory and waits until the server says that it is ready.
func Mount(t testing.TB, store string, flags ...string) *Mounted {
	t.Helper()
	return MountAs(t, nil, store, filepath.Join(t.TempDir(), "mnt"), flags...)
}

// MountFiles is Mount by a server that may have so many files open.
func MountFiles(t testing.TB, files int, store string, flags ...string) *Mounted {
	t.Helper()
	limit := func(cmd *exec.Cmd) {
		script := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files)
		cmd.Args = append([]string{"sh", "-c", script, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
	}
	return mount(t, nil, limit, store, filepath.Join(t.TempDir(), "mnt"), flags...)
}

// MountAs is Mount with the rights of another user, on a directory that is made if it does not exist.
func MountAs(t testing.TB, cred *syscall.Credential, store, dir string, flags ...string) *Mounted {
	t.Helper()
	return mount(t, cred, func(*exec.Cmd) {}, store, dir, flags...)
}

func mount(t testing.TB, cred *syscall.Credential, change func(*exec.Cmd), store, dir string,
	flags ...string) *Mounted {
	t.Helper()
	NeedFUSE(t)
	m := &Mounted{Dir: dir, Store: store, t: t}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if cred != nil {
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	ready, socket := notifySocket(t)
	log, err := os.CreateTemp("", "thaw-server-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	m.log = log.Name()
	t.Cleanup(func() { os.Remove(m.log) })

	cmd := Command(append([]string{"mount", store, dir, "--verbose"}, flags...)...)
	cmd.SysProcAttr.Credential = cred
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	cmd.Stdout, cmd.Stderr = log, log
	change(cmd)
	if m.proc, err = proc.Start(cmd); err != nil {
		t.Fatalf("start the server: %v", err)
	}
	t.Cleanup(m.cleanup)
	awaitReady(t, ready, m.proc, m.Log)
	if m.dev = deviceOf(dir); m.dev == "" {
		t.Fatalf("the server says that it is ready, but nothing is mounted on %s\n%s", dir, m.Log())
	}
	return m
}

// notifySocket makes a socket like systemd's, on which the server sends READY=1.
func notifySocket(t testing.TB) (*net.UnixConn, string) {
	t.Helper()
	// The path of a socket is at most 107 bytes: not below the test's own directory.
	dir, err := os.MkdirTemp("", "thaw-notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	addr := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for _, path := range []string{dir, addr.Name} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return conn, addr.Name
}

// awaitReady waits for READY=1, or fails when the server ends or a minute has gone by.
func awaitReady(t testing.TB, conn *net.UnixConn, server *proc.Process, log func() string) {
	t.Helper()
	said := make(chan string, 1)
	go func() {
		defer close(said)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains(string(buf[:n]), "READY=1") {
				said <- "ready"
				return
			}
		}
	}()
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	select {
	case <-said:
	case <-server.Done():
		t.Fatalf("the server ended before it was ready: %v\n%s", server.Err(), log())
	case <-timer.C:
		t.Fatalf("the server is not ready after a minute (%s)\n%s", proc.State(server.Pid()), log())
	}
}

// deviceOf finds the topmost FUSE mount on dir without touching it; "" if there is none.
func deviceOf(dir string) string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	dev := ""
	for in := bufio.NewScanner(f); in.Scan(); {
		fields := strings.Fields(in.Text())
		if len(fields) > 5 && fields[4] == dir && strings.Contains(in.Text(), " - fuse") {
			dev = fields[2]
		}
	}
	return dev
}

// Path returns the path of a file on the mount.
func (m *Mounted) Path(elem ...string) string {
	return filepath.Join(append([]string{m.Dir}, elem...)...)
}

// Pid returns the pid of the server.
func (m *Mounted) Pid() int { return m.proc.Pid() }

// Connection is the number of the mount's FUSE connection.
func (m *Mounted) Connection() string {
	_, minor, _ := strings.Cut(m.dev, ":")
	return minor
}

// Log returns what the server has printed so far.
func (m *Mounted) Log() string { return slurp(m.log) }

// DebugURL is where a server that was given --debug-listen serves its metrics and profiles.
func (m *Mounted) DebugURL() string {
	m.t.Helper()
	said := regexp.MustCompile(`metrics on (http://[^/]+)/metrics, profiles`)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for range 1000 { // it says so just after it is ready
		if at := said.FindStringSubmatch(m.Log()); at != nil {
			return at[1]
		}
		<-again.C
	}
	m.t.Fatalf("the server does not say where its metrics are:\n%s", m.Log())
	return ""
}

// Client starts a client process. If it hangs, this mount's connection is aborted to free it.
func (m *Mounted) Client(t testing.TB) *client.Client {
	t.Helper()
	return client.Start(t, m.abort)
}

// Kill kills the server with SIGKILL and waits for its end. The dead mount stays.
func (m *Mounted) Kill() {
	m.t.Helper()
	if err := m.proc.Kill(10 * time.Second); err != nil {
		m.t.Fatalf("server: %v", err)
	}
}

// Unmount unmounts and requires that the server ends with status 0.
func (m *Mounted) Unmount() {
	m.t.Helper()
	OK(m.t, "umount", m.Dir)
	if err := m.proc.Wait(20 * time.Second); err != nil {
		m.t.Errorf("the server after umount: %v\n%s", err, m.Log())
	}
}

// WaitEnd waits for the server's end.
func (m *Mounted) WaitEnd(within time.Duration) error { return m.proc.Wait(within) }

// Abort aborts the connection, so that everything that waits for this mount gets an error.
func (m *Mounted) Abort() { m.abort() }

// abort aborts the FUSE connection of this mount only.
func (m *Mounted) abort() {
	if minor := m.Connection(); minor != "" {
		_ = os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
	}
}

// cleanup removes mount and server, whatever state they are in.
func (m *Mounted) cleanup() {
	_ = m.proc.Signal(syscall.SIGTERM)
	var hang *proc.HangError
	if err := m.proc.Wait(15 * time.Second); errors.As(err, &hang) {
		m.t.Errorf("the server does not end on SIGTERM: %v\n%s", err, m.Log())
		m.abort()
		if err := m.proc.Kill(10 * time.Second); err != nil {
			m.t.Errorf("server: %v", err)
		}
	}
	if strings.Contains(m.Log(), "DATA RACE") || strings.Contains(m.Log(), "panic:") {
		m.t.Errorf("the server crashed:\n%s", m.Log())
	}
	for i := 0; i < 8 && deviceOf(m.Dir) != ""; i++ {
		m.abort()
		if err := syscall.Unmount(m.Dir, syscall.MNT_DETACH); err != nil {
			_, err = exec.Command("fusermount3", "-u", "-z", m.Dir).CombinedOutput()
			if err != nil {
				m.t.Errorf("mount left on %s: %v", m.Dir, err)
			}
		}
	}
}

// Stats are the counters of an image that the tests look at.
type Stats struct {
	Opens           uint64  `json:"opens"`
	PrefetchedPages uint64  `json:"prefetched_pages"`
	PrefetchedBytes uint64  `json:"prefetched_bytes"`
	PrefetchSeconds float64 `json:"prefetch_seconds"`
	Prefetches      uint64  `json:"prefetches"`
	LazyPages       uint64  `json:"lazy_pages"`
	LazyRequests    uint64  `json:"lazy_requests"`
	PushedPages     uint64  `json:"pushed_pages"`
	StallSeconds    float64 `json:"stall_seconds"`
	EvictedPages    uint64  `json:"evicted_pages"`
	Errors          uint64  `json:"errors"`
}

// Stats reads the counters of an image, or of a clone ("vm/clones/a"), as any user would.
func (m *Mounted) Stats(t testing.TB, name string) Stats {
	t.Helper()
	out, err := Tool(t, 30*time.Second, "cat", m.Path(name, "stats.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s Stats
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("stats.json of %s: %v\n%s", name, err, out)
	}
	return s
}

func (s Stats) String() string {
	return fmt.Sprintf("prefetched %d in %.3f s, lazy %d in %d requests, pushed %d, evicted %d, "+
		"stalled %.3f s, "+
		"errors %d", s.PrefetchedPages, s.PrefetchSeconds, s.LazyPages, s.LazyRequests,
		s.PushedPages, s.EvictedPages, s.StallSeconds, s.Errors)
}

// Terminate asks the server to end, as systemd does.
func (m *Mounted) Terminate() {
	m.t.Helper()
	if err := m.proc.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatalf("server: %v", err)
	}
}

// Demanded returns how many pages were read on demand that had not been in the page cache before. The
// kernel may evict pages at any time, pushed ones too, and some hosts do so long before memory is short
// (DAMON's proactive reclaim). Reading evicted pages again is not a fault of the restore.
func (s Stats) Demanded() uint64 { return s.LazyPages - min(s.LazyPages, s.EvictedPages) }
