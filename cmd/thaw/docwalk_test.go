package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell is a shell on an empty machine: nothing of thaw in /srv, /mnt and /tmp, an empty home. It has a mount
// namespace of its own, and everything in it is gone when it ends.
type shell struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

// emptyMachine begins a shell.
func emptyMachine(t *testing.T) *shell {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a mount namespace with an empty /srv, /mnt and /tmp")
	}
	if ok, _ := scriptCondition("fuse"); !ok {
		t.Skip("needs /dev/fuse")
	}
	work := t.TempDir()
	t.Cleanup(func() {
		if err := cleanUp(work); err != nil && !t.Failed() {
			t.Errorf("left behind: %v", err)
		}
	})
	s := &shell{t: t, cmd: exec.Command("bash", "-s"), lines: make(chan string, 1000)}
	s.cmd.Env = append(os.Environ(), asCommand+"=1", "WORK="+work, "TMPDIR=/tmp", "HOME=/tmp/home",
		"GORACE=atexit_sleep_ms=10", fmt.Sprintf("THAW=/proc/%d/exe", os.Getpid()))
	s.cmd.Dir = "/"
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Setpgid: true}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		t.Skipf("no mount namespace of its own: %v", err)
	}
	go func() {
		defer close(s.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			s.lines <- scanner.Text()
		}
	}()
	t.Cleanup(s.close)
	// Other tests' mounts would be in use by this namespace.
	s.do("set up", `mount --make-rprivate /
for m in $(awk '$3 == "fuse.thaw" {print $2}' /proc/self/mounts); do umount -l "$m"; done
for d in /srv /mnt /tmp; do mkdir -p $d; mount -t tmpfs -o mode=1777 tmpfs $d; done
mkdir /tmp/home /tmp/bin
ln -s $THAW /tmp/bin/thaw`)
	return s
}

// walkTimeout bounds one block.
const walkTimeout = 3 * time.Minute

// do runs a block, as it stands, and returns what it printed. A command that fails ends the test.
func (s *shell) do(what, block string) string {
	s.t.Helper()
	const end = "#ended "
	// In the files of the test's own thaw; a user has it on the PATH as well.
	_, err := fmt.Fprintf(s.in, "(set -e -o pipefail; PATH=/tmp/bin:$PATH; cd /tmp/home 2>/dev/null || cd /\n"+
		"%s\n) </dev/null\ncode=$?; echo; echo '%s'$code\n", block, end)
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	var said strings.Builder
	timer := time.NewTimer(walkTimeout)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-s.lines:
			if status, last := strings.CutPrefix(line, end); last {
				if status != "0" {
					s.t.Fatalf("%s ended with %s:\n%s\n%s", what, status, block, said.String())
				}
				return said.String()
			}
			if !ok {
				s.t.Fatalf("%s ended the shell:\n%s", what, said.String())
			}
			said.WriteString(line + "\n")
		case <-timer.C:
			s.t.Fatalf("%s takes longer than %v:\n%s\n%s", what, walkTimeout, block, said.String())
		}
	}
}

// root is a path of the empty machine as this process reaches it.
func (s *shell) root(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", s.cmd.Process.Pid), path)
}

// close ends the shell and what it has started.
func (s *shell) close() {
	_ = s.in.Close()
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	for range s.lines {
	}
	_ = s.cmd.Wait()
}

// shorter makes a block of the README one that does not take long: a smaller guest, watched for a shorter
// time.
var shorter = strings.NewReplacer("1GiB", "64MiB", "10s", "1s")

// The README, from an empty machine to a restore, as it stands; but for the time that it takes.
func TestWalk(t *testing.T) {
	brief := shorter.Replace
	if os.Getenv("THAW_TEST_LONG") != "" {
		brief = func(s string) string { return s }
	}
	s := emptyMachine(t)
	install := block(t, "README", "go install", 0)
	for line := range strings.Lines(install) {
		if command, _, _ := strings.Cut(line, "#"); !strings.HasPrefix(command, "go install") {
			s.do("README: Install", command) // what is installed is the code under test
		}
	}
	if ok, _ := scriptCondition("kvm"); ok {
		s.do("README: Five minutes", brief(block(t, "README", "mkdir -p /mnt/thaw", 0)))
		if said := s.do("what there is then", "thaw ls /srv/store; ls -A /mnt/thaw; ls /tmp"); !strings.Contains(
			said, "\nheap ") || strings.Contains(said, "vm.sock") {
			t.Errorf("after the walk there is:\n%s", said)
		}
	} else {
		t.Log("without /dev/kvm: the machine of the README is not run")
	}

	// thaw help firecracker, with files like those of Firecracker.
	if err := os.Mkdir(s.root("/srv/snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"vmstate": vmState(1), "mem": make([]byte, 1<<20)} {
		if err := os.WriteFile(s.root("/srv/snap/"+name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	said := s.do("help firecracker", block(t, "firecracker", "thaw import", 0)+
		"\nthaw inspect /mnt/thaw/web-1\ncmp /srv/snap/mem /mnt/thaw/web-1/mem\nthaw umount /mnt/thaw")
	if load := block(t, "firecracker", "curl --unix-socket /run/fc2.sock -X PUT", 0); !strings.Contains(said,
		`"/mnt/thaw/web-1/mem"`) || !strings.Contains(load, `"/mnt/thaw/web-1/mem"`) {
		t.Errorf("inspect says\n%s\nand the page\n%s", said, load)
	}

	// thaw help formats, with files in the place of words.
	s.do("a memory", `head -c 1M /dev/urandom >mem.raw; head -c 1M /dev/urandom | zstd -q >memory.zst`)
	of := strings.NewReplacer("PATH", "mem.raw", "--name NAME", "--name raw")
	for i, line := range strings.Split(strings.TrimSpace(block(t, "formats", "thaw import", 0)), "\n") {
		s.do("help formats", strings.ReplaceAll(of.Replace(line), "--name raw", fmt.Sprintf("--name raw-%d", i)))
	}
	if said := s.do("what there is then", "thaw ls /srv/store"); !strings.Contains(said, "raw-1 ") {
		t.Errorf("after help formats there is:\n%s", said)
	}
}
