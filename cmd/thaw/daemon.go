package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// A server goes to the background by starting thaw once more: the child gets the same command line,
// a session of its own, a log file for stdout and stderr, and in the variable readyEnv the number
// of a pipe on which it says, in one JSON line, that it is ready or why it could not be. The parent
// waits for that line, so that `thaw mount --daemon` has the exit status and the message of what
// the server did.
const readyEnv = "THAW_READY_FD"

// readyMessage is the line on the pipe.
type readyMessage struct {
	Ready bool               `json:"ready"`
	Error *control.WireError `json:"error,omitempty"`
}

// readyPipe is the child's end; nil where the process is no background server.
func readyPipe() *os.File {
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	if err != nil {
		return nil
	}
	_ = os.Unsetenv(readyEnv) // helper processes of the server must not answer
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "ready pipe")
}

// tellReady reports on the pipe that the server is ready (err is nil), or its error. Nothing where pipe
// is nil.
func tellReady(pipe *os.File, err error) {
	if pipe == nil {
		return
	}
	m := readyMessage{Ready: err == nil}
	if err != nil {
		m.Error = control.ToWire(err, classify)
	}
	_ = json.NewEncoder(pipe).Encode(m) // the parent may have been killed meanwhile
	_ = pipe.Close()
}

// startDaemon runs this program with args in the background and returns its process number when it
// said that it is ready.
func startDaemon(ctx context.Context, args []string, log *os.File) (int, error) {
	cmd := selfCommand(args...)
	cmd.Stdout, cmd.Stderr = log, log
	before, _ := log.Seek(0, io.SeekEnd) // its messages come after that
	cmd.Dir = "/"                        // it outlives this command, and must not keep its directory busy
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := startUntilReady(ctx, cmd); err != nil {
		if code, _, ok := exitcode.Of(err); ok && code == exitcode.Mount {
			return 0, exitcode.WithHint(code, fmt.Errorf("%w%s", err, lastLine(log.Name(), before)),
				"its log: "+log.Name())
		}
		return 0, err
	}
	pid := cmd.Process.Pid
	return pid, cmd.Process.Release()
}

// lastLine is the last line of a log after an offset: ": line", or nothing.
func lastLine(name string, offset int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, offset, 64<<10))
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return ": " + string(lines[len(lines)-1])
}

// selfCommand is this program again, with other arguments.
func selfCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	return cmd
}

// startUntilReady starts a server and waits until it says that it is ready, or why it could not be;
// it then has ended.
func startUntilReady(ctx context.Context, cmd *exec.Cmd) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w} // the child's descriptor 3
	cmd.Env = append(cmd.Environ(), readyEnv+"=3")
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	var m readyMessage
	err = awaitReady(ctx, r, &m)
	if err == nil && m.Error == nil {
		return nil
	}
	if ctx.Err() != nil {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	werr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case m.Error != nil:
		return m.Error.Err()
	}
	return exitcode.With(exitcode.Mount,
		fmt.Errorf("the server ended before it was ready: %w", errors.Join(werr, err)))
}

// awaitReady reads the line of the child, or gives up when ctx ends.
func awaitReady(ctx context.Context, r *os.File, m *readyMessage) error {
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err := json.NewDecoder(r).Decode(m)
	if errors.Is(err, io.EOF) {
		return errors.New("it said nothing")
	}
	return err
}

// shutdownSignals delivers the second and later signals that ask a server to stop: the first one has
// ended the context of the command. The returned function ends the delivery.
func shutdownSignals() (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	return ch, func() { signal.Stop(ch) }
}
