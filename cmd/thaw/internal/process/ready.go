package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// readyEnv tells a server the number of the pipe on which it reports.
const readyEnv = "THAW_READY_FD"

// readyMessage is the line on the pipe.
type readyMessage struct {
	Ready bool               `json:"ready"`
	PID   int                `json:"pid"` // of the server, which a holder may have started
	Error *control.WireError `json:"error,omitempty"`
}

// Ready is a server's end of the pipe on which it reports to the process that started it. Without
// such a process it is nil, and reports nothing.
type Ready struct{ pipe *os.File }

// OpenReady finds the pipe that this process was started with.
func OpenReady() *Ready {
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	if err != nil {
		return nil
	}
	_ = os.Unsetenv(readyEnv) // helper processes of the server must not answer
	syscall.CloseOnExec(fd)
	return &Ready{os.NewFile(uintptr(fd), "ready pipe")}
}

// Give has another process report in place of this one.
func (r *Ready) Give(cmd *exec.Cmd) {
	if r != nil {
		cmd.Env = append(cmd.Environ(), fmt.Sprintf("%s=%d", readyEnv, 3+len(cmd.ExtraFiles)))
		cmd.ExtraFiles = append(cmd.ExtraFiles, r.pipe)
	}
}

// Close gives the pipe up. If nobody has reported, that is what the parent sees.
func (r *Ready) Close() {
	if r != nil {
		_ = r.pipe.Close()
	}
}

// Tell reports that the server is ready (err is nil), or why it could not be.
func (r *Ready) Tell(err error, classify control.Classify) {
	if r == nil {
		return
	}
	m := readyMessage{Ready: err == nil, PID: os.Getpid()}
	if err != nil {
		m.Error = control.ToWire(err, classify)
	}
	_ = json.NewEncoder(r.pipe).Encode(m) // the parent may have been killed meanwhile
	_ = r.pipe.Close()
}

// Self is this program again, with other arguments.
func Self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	return cmd
}

// StartDaemon runs this program as a server in the background, with args and its output in log, and
// returns the server's process number when it said that it is ready.
func StartDaemon(ctx context.Context, args []string, log *os.File) (int, error) {
	cmd := Self(args...)
	cmd.Stdout, cmd.Stderr = log, log
	before, _ := log.Seek(0, io.SeekEnd) // its messages come after that
	cmd.Dir = "/"                        // it outlives this command, and must not keep its directory busy
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pid, err := startServer(ctx, cmd)
	if err != nil {
		if exitcode.Has(err, exitcode.Mount) {
			err = exitcode.WithHint(exitcode.Mount, fmt.Errorf("%w%s", err, lastLine(log.Name(), before)),
				"its log: "+log.Name())
		}
		return 0, err
	}
	return pid, cmd.Process.Release()
}

// lastLine is the last line of a log after an offset that another program has written, such as fusermount3:
// ": line", or nothing. What thaw says itself it has told the process that started it.
func lastLine(name string, offset int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.NewSectionReader(f, offset, 64<<10))
	last := ""
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, "\n"); line != "" && !ownLine.MatchString(line) {
			last = ": " + line
		}
	}
	return last
}

// ownLine is how lines begin that thaw writes into its log.
var ownLine = regexp.MustCompile(`^(time=|\{"time":|thaw: | )`)

// StartServer starts a server and waits until it says that it is ready, or why it could not be; it
// then has ended.
func StartServer(ctx context.Context, cmd *exec.Cmd) error {
	_, err := startServer(ctx, cmd)
	return err
}

func startServer(ctx context.Context, cmd *exec.Cmd) (pid int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	(&Ready{w}).Give(cmd)
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, fmt.Errorf("start the server: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var m readyMessage
	err = json.NewDecoder(r).Decode(&m)
	switch {
	case err == nil && m.Error == nil:
		return m.PID, nil
	case errors.Is(err, io.EOF):
		err = errors.New("it said nothing")
	case ctx.Err() != nil:
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	werr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case m.Error != nil:
		return 0, m.Error.Err()
	}
	return 0, exitcode.With(exitcode.Mount,
		fmt.Errorf("the server ended before it was ready: %w", errors.Join(werr, err)))
}
