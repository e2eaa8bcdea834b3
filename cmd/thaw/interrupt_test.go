package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// interrupted is a verb in the middle of its work, and how to see that it is there.
type interrupted struct {
	name string
	args []string
	said string // what it prints when it is there; "": something in dir tells
	made string // pattern below the test's directory
	kvm  bool
	// prepare makes what it needs; what is returned ends that.
	prepare func(t *testing.T, work string) (end func())
	left    []string // patterns of what may be left behind below the directory
}

// Ctrl-C ends each verb at once, in the middle of its work: it says "interrupted" and nothing else, and
// leaves no process, no mount and no file behind. How long it took is logged, and not judged: the
// host may be busy.
func TestInterrupt(t *testing.T) {
	small := []string{"--memory", "64MiB", "--arg", "set=8MiB", "--warm", "1s", "--window", "20s"}
	long := append(small, "--scan", "30s", "--trace", "30s")
	brief := append(small, "--scan", "200ms", "--trace", "200ms")
	for _, c := range []interrupted{
		{name: "import of a pipe", args: []string{"import", "new", "fifo", "--name", "x"}, prepare: stallingPipe,
			made: "new/thaw-store.json", left: []string{"new", "fifo"}},
		{name: "import", args: []string{"import", "new", "large"}, made: "new/packs/*", left: []string{"new"}},
		{name: "export", args: []string{"export", "st", "large", "out"}, said: `[1-9]%`},
		{name: "repack", args: []string{"repack", "st"}, said: `\d+/\d+|%`},
		{name: "check", args: []string{"check", "st", "--read-data"}, said: `%`},
		{name: "ws scan", args: []string{"ws", "scan", "--qemu", "qmp", "--memory", "mem", "--out", "set"},
			prepare: silentSocket, left: []string{"qmp"}},
		{name: "ws record", args: []string{"ws", "record", "mnt/small"}, prepare: stoppedServer},
		{name: "stats of a server that hangs", args: []string{"stats", "mnt"}, prepare: stoppedServer},
		{name: "demo, saving", args: append([]string{"demo"}, long...), said: `saving it`, kvm: true},
		{name: "demo, booting", args: []string{"demo", "--memory", "1GiB"}, said: `it fills its memory`, kvm: true},
		{name: "demo, restoring", args: append([]string{"demo"}, brief...), said: `(?s)restoring.*restoring`,
			kvm: true},
		{name: "compare, restoring", args: append([]string{"compare", "--methods", "lazy"}, brief...),
			said: `(?s)restoring.*restoring`, kvm: true},
		{name: "vm checkpoint", args: []string{"vm", "checkpoint", "vm.sock", "saved", "--scan", "30s"},
			prepare: machine, kvm: true},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t) })
	}
}

func (c interrupted) run(t *testing.T) {
	if ok, _ := scriptCondition("kvm"); c.kvm && !ok {
		t.Skip("needs /dev/kvm")
	}
	if ok, _ := scriptCondition("fuse"); !ok {
		t.Skip("needs /dev/fuse, and root or fusermount3 (package fuse3)")
	}
	work := t.TempDir()
	t.Cleanup(func() {
		if err := cleanUp(work); err != nil && !t.Failed() {
			t.Errorf("left behind: %v", err)
		}
	})
	if err := os.Mkdir(filepath.Join(work, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.images(t, work)
	end := func() {}
	if c.prepare != nil {
		end = c.prepare(t, work)
	}
	before := entriesIn(t, work)
	x := onTerminal(t, work, c.args...)
	there := x.await(c.name, func() bool {
		if c.said != "" {
			return regexp.MustCompile(c.said).MatchString(x.text())
		}
		found, err := filepath.Glob(filepath.Join(work, c.made))
		if c.made == "" {
			return waits(x.cmd.Process.Pid)
		}
		return err != nil || len(found) > 0
	})
	said, code, took := x.interrupt()
	end()
	switch {
	case code == 0 && there:
		t.Logf("it had ended before: %s", x.text())
	case code != int(exitcode.Interrupted) || said != "thaw: interrupted":
		t.Errorf("after ctrl-C it ended with %d and said %q", code, said)
	}
	t.Logf("it took %v", took.Round(time.Millisecond))
	for name := range entriesIn(t, work) {
		if !before[name] && !c.mayLeave(name) && code != 0 {
			t.Errorf("it leaves %s", name)
		}
	}
}

func (c interrupted) mayLeave(name string) bool {
	for _, may := range c.left {
		if name == may || strings.HasPrefix(name, may+"/") {
			return true
		}
	}
	return false
}

// entriesIn lists what is in a directory and in that for temporary files.
func entriesIn(t *testing.T, dir string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, pattern := range []string{"*", ".*", "tmp/*", "tmp/.*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			rel, err := filepath.Rel(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			all[rel] = true
		}
	}
	return all
}

// images makes what is worked on: a store with an image that takes its time, and files of images.
func (c interrupted) images(t *testing.T, work string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	page := make([]byte, 1<<20)
	write := func(name string, mib int) {
		f, err := os.Create(filepath.Join(work, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for range mib {
			for i := range page {
				page[i] = byte(rng.Uint32() % 23)
			}
			if _, err := f.Write(page); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("mem", 1)
	switch c.args[0] {
	case "import":
		write("large", 192)
		return
	case "export", "repack", "check":
		write("large", 192)
		run(t, work, "import", "st", "large")
	case "ws", "stats":
		run(t, work, "import", "st", "mem", "--name", "small")
	}
}

// run runs a command that must succeed.
func run(t *testing.T, work string, args ...string) {
	t.Helper()
	if out, err := thaw(work, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// waits says whether a process waits for another one: it has a socket, or asks a mount for something.
func waits(pid int) bool {
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, name := range open {
		if target, err := os.Readlink(name); err == nil && strings.HasPrefix(target, "socket:") {
			return true
		}
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if err == nil && (bytes.Contains(text, []byte("fuse")) || bytes.Contains(text, []byte("request_wait"))) {
			return true
		}
	}
	return false
}

// stallingPipe writes half of an image into a pipe, and no more.
func stallingPipe(t *testing.T, work string) func() {
	name := filepath.Join(work, "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		_, _ = f.Write(bytes.Repeat([]byte("half of an image"), 1<<18))
		<-stop
	}()
	return func() { close(stop); <-done }
}

// silentSocket is a QEMU that does not answer.
func silentSocket(t *testing.T, work string) func() {
	l, err := net.Listen("unix", filepath.Join(work, "qmp"))
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = l.Close() }
}

// stoppedServer mounts the store and stops its server.
func stoppedServer(t *testing.T, work string) func() {
	if err := os.Mkdir(filepath.Join(work, "mnt"), 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, work, "mount", "st", "mnt", "--daemon")
	pid, err := serverOf(filepath.Join(work, "mnt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(waitTimeout); !hasStopped(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
	return func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
		run(t, work, "umount", "mnt")
	}
}

// hasStopped says whether all threads of a process have stopped: until then one may answer a last request.
func hasStopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if err == nil && !bytes.Contains(text, []byte(") T ")) {
			return false
		}
	}
	return len(threads) > 0
}

// machine runs a guest.
func machine(t *testing.T, work string) func() {
	cmd := thaw(work, "vm", "run", "heap", "--memory", "64MiB", "--api", "vm.sock")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(waitTimeout); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := thaw(work, "vm", "status", "vm.sock").Run(); err == nil {
			break
		}
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Logf("the machine: %v", err)
		}
	}
}
