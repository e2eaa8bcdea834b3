package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/process"
)

// terminal is a command that runs on a terminal of its own, as a user starts it.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	read   chan struct{} // closed when all that it printed was read

	mu  sync.Mutex
	out bytes.Buffer // guarded by mu
}

// onTerminal starts thaw on a terminal. All of its processes have WORK=work in their environment, and work
// as their directory for temporary files.
func onTerminal(t *testing.T, work string, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	x := &terminal{t: t, cmd: thaw(work, args...), master: master, read: make(chan struct{})}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(x.read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf) // EIO when nobody has the terminal open any more
			x.mu.Lock()
			x.out.Write(buf[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return x
}

// thaw is the code under test as a command.
func thaw(work string, args ...string) *exec.Cmd {
	cmd := process.Self(args...)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), asCommand+"=1", "WORK="+work, "TMPDIR="+work+"/tmp", "HOME="+work,
		"XDG_RUNTIME_DIR="+work+"/tmp", "GORACE=atexit_sleep_ms=10")
	return cmd
}

// text is what it has printed, without what moves the cursor.
func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return cursor.ReplaceAllString(x.out.String(), "")
}

var cursor = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// await waits until a condition holds; false if the command ended before.
func (x *terminal) await(what string, holds func() bool) bool {
	x.t.Helper()
	for end := time.Now().Add(waitTimeout); !holds(); time.Sleep(time.Millisecond) {
		select {
		case <-x.read:
			return holds()
		default:
		}
		if time.Now().After(end) {
			x.t.Errorf("%s: it never came to that; it said\n%s", what, x.text())
			return false
		}
	}
	return true
}

// interrupt types ctrl-C and waits for the end. It returns what was printed after that, what a progress bar
// drew apart, the status, and how long it took.
func (x *terminal) interrupt() (said string, code int, took time.Duration) {
	x.t.Helper()
	before := len(x.text())
	began := time.Now()
	if _, err := x.master.Write([]byte{3}); err != nil {
		x.t.Fatal(err)
	}
	watchdog := time.AfterFunc(waitTimeout, func() { _ = x.cmd.Process.Kill() })
	err := x.cmd.Wait()
	took = time.Since(began)
	watchdog.Stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	// What the command has started in the background may have the terminal open.
	select {
	case <-x.read:
	case <-time.After(exitPatience):
		x.t.Errorf("somebody still has the terminal of %q", x.cmd.Args)
	}
	_ = x.master.Close()
	<-x.read
	text := x.text()
	text = strings.ReplaceAll(text[min(before, len(text)):], "\r\n", "\n")
	var lines []string
	for line := range strings.Lines(text) {
		line = line[strings.LastIndexByte(strings.TrimRight(line, "\r\n"), '\r')+1:] // a bar is drawn over
		if line = strings.TrimSpace(strings.ReplaceAll(line, "^C", "")); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n"), code, took
}
