package process

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss/ramfile"
)

// vmmEnv makes a process of the test binary one that looks like a VMM: it maps a file as RAM, and has
// threads that write to it.
const vmmEnv = "THAW_TEST_VMM"

// scannerEnv makes a process of the test binary one that pauses the machine of a process, says so, and
// does nothing more.
const scannerEnv = "THAW_TEST_SCANNER"

const (
	vmmThreads = 3
	vmmRAM     = 32 << 20
)

func TestMain(m *testing.M) {
	if os.Getenv(vmmEnv) != "" {
		if err := vmm(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if pid, err := strconv.Atoi(os.Getenv(scannerEnv)); err == nil {
		if err := pauseForever(pid); err != nil {
			fmt.Println(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func pauseForever(pid int) error {
	g, err := Open(context.Background(), pid, Options{})
	if err != nil {
		return err
	}
	if err := g.Pause(context.Background()); err != nil {
		return err
	}
	fmt.Println("paused")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// vmm counts in the first words of the file at descriptor 3, one a thread, and after these the signals
// that it gets, until its input ends. Threads are replaced all the time.
func vmm() error {
	b, err := unix.Mmap(3, 0, vmmRAM, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	var count [vmmThreads]uint64
	for i := range vmmThreads {
		go func() {
			runtime.LockOSThread()
			for {
				count[i]++
				binary.LittleEndian.PutUint64(b[8*i:], count[i])
				if i == 0 {
					runtime.Gosched()
				}
			}
		}()
	}
	go func() {
		for { // each ends with its thread
			done := make(chan struct{})
			go func() { defer close(done); runtime.LockOSThread() }()
			<-done
		}
	}()
	signals := make(chan os.Signal, 1024)
	signal.Notify(signals, unix.SIGUSR1)
	go func() {
		var n uint64
		for range signals {
			n++
			binary.LittleEndian.PutUint64(b[8*vmmThreads:], n)
		}
	}()
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startVMM starts one, and returns its RAM.
func startVMM(t *testing.T) (pid int, f *os.File) {
	t.Helper()
	f = memfd(t, vmmRAM)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), vmmEnv+"=1", "GOMAXPROCS=2")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the VMM: %v", err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd.Process.Pid, f
}

// words reads what the VMM has counted.
func words(t *testing.T, f *os.File) (w [vmmThreads + 1]uint64) {
	t.Helper()
	var b [8 * (vmmThreads + 1)]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		t.Fatal(err)
	}
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return w
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begin := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("never: %s", what)
		}
	}
}

// openVMM opens the machine of a process that is being traced by nobody.
func openVMM(t *testing.T, pid int, o Options) *Guest {
	t.Helper()
	g, err := Open(t.Context(), pid, o)
	if errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// While it is paused nothing changes in its memory; afterwards it goes on. No signal is lost, and
// nothing is attached in between.
func TestPause(t *testing.T) {
	pid, f := startVMM(t)
	g := openVMM(t, pid, Options{})
	if len(g.Places) != 1 || g.Places[0] != (ramfile.Place{GPA: 0, Size: vmmRAM, Offset: 0}) {
		t.Errorf("RAM: %+v", g.Places)
	}
	var sent uint64
	for range 10 {
		before := words(t, f)
		eventually(t, "it runs", func() bool { return words(t, f)[1] > before[1] })
		if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		sent++
		if err := g.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		still := words(t, f)
		for range 1000 {
			if now := words(t, f); now != still {
				t.Fatalf("it runs while it is paused: %v, %v", still, now)
			}
		}
		if err := g.Resume(); err != nil {
			t.Fatal(err)
		}
		if tracer := status(t, pid, "TracerPid:"); tracer != "0" {
			t.Errorf("%s is attached", tracer)
		}
		// A second signal of the same kind would be merged with it.
		eventually(t, "the signal arrives", func() bool { return words(t, f)[vmmThreads] == sent })
	}
}

// status is a line of /proc/PID/status.
func status(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), name)
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// One that a signal has stopped stays so, until a signal lets it go on.
func TestPauseOfStopped(t *testing.T) {
	pid, f := startVMM(t)
	g := openVMM(t, pid, Options{})
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stops", func() bool { return strings.HasPrefix(status(t, pid, "State:"), "T") })
	if err := errors.Join(g.Pause(t.Context()), g.Resume()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is stopped again",
		func() bool { return strings.HasPrefix(status(t, pid, "State:"), "T (stopped)") })
	still := words(t, f)
	for range 1000 {
		if now := words(t, f); now != still {
			t.Fatal("it runs")
		}
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return words(t, f)[1] > still[1] })
}

// A VMM that ends is an error, whatever was being done, and leaves nothing attached.
func TestPauseOfEnded(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	p, err := openProc(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.dir.Close()
	threads := newThreads(p)
	defer threads.close()
	if err := threads.stop(t.Context()); errors.Is(err, unix.EPERM) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := threads.resume(); err != nil {
		t.Error(err)
	}
	var failed *exec.ExitError
	err = cmd.Wait()
	if !errors.As(err, &failed) || failed.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("it ended with %v", err)
	}
	if err := threads.stop(t.Context()); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		t.Errorf("stop of a process that has ended: %v", err)
	}
}

// A scanner that is killed while the machine is paused does not leave it so.
func TestKilledScanner(t *testing.T) {
	pid, f := startVMM(t)
	openVMM(t, pid, Options{}) // or skips
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", scannerEnv, pid))
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	still := words(t, f)
	if err != nil || line != "paused\n" || words(t, f) != still {
		t.Errorf("%q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, "the machine goes on", func() bool { return words(t, f)[1] > still[1] })
}

func TestOpen(t *testing.T) {
	if _, err := Open(t.Context(), 1<<30, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
	pid, f := startVMM(t)
	fd := 3
	openVMM(t, pid, Options{FD: &fd})
	openVMM(t, pid, Options{File: fmt.Sprintf("/proc/self/fd/%d", f.Fd())})
	fd = 0
	other := 99
	for what, o := range map[string]Options{"its input": {FD: &fd}, "no descriptor": {FD: &other},
		"no file": {File: "nowhere"}, "another file": {File: os.Args[0]}, "both": {FD: &fd, File: "x"}} {
		if g, err := Open(t.Context(), pid, o); err == nil {
			g.Close()
			t.Errorf("%s was taken for the RAM", what)
		}
	}
	if status(t, pid, "TracerPid:") != "0" {
		t.Error("somebody is attached")
	}
}
