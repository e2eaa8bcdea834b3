package holder

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
)

// A life is that of one server, from its start to its end.
type life struct {
	cmd      *exec.Cmd
	conn     *net.UnixConn
	messages chan process.Message // closed when it has closed its end
	dead     chan struct{}        // closed when its main thread has ended
	reaped   chan error           // its status, once all of it has ended
	ready    time.Time            // zero: not yet
}

// begin follows a server that was started.
func begin(cmd *exec.Cmd, conn *net.UnixConn) *life {
	l := &life{
		cmd: cmd, conn: conn, messages: make(chan process.Message), dead: make(chan struct{}),
		reaped: make(chan error, 1),
	}
	go func() {
		defer close(l.messages)
		for {
			m, err := process.ReadMessage(conn)
			if err != nil || m.Empty() {
				return
			}
			l.messages <- m
		}
	}()
	thread, err := unix.PidfdOpen(cmd.Process.Pid, pidfdThread)
	go func() {
		if err == nil {
			awaitThread(thread)
			close(l.dead)
		}
		l.reaped <- cmd.Wait() // it may never come
		if err != nil {        // a kernel that cannot tell of single threads
			close(l.dead)
		}
	}()
	return l
}

// pidfdThread is PIDFD_THREAD (Linux 6.9).
const pidfdThread = unix.O_EXCL

// awaitThread waits until a thread has ended.
func awaitThread(pidfd int) {
	defer unix.Close(pidfd)
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, -1); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// restTime is how long a server may take to be gone after its main thread. Then it has threads that wait.
const restTime = 200 * time.Millisecond

// rest returns what the server has said and was not read yet.
func (l *life) rest() (list []process.Message) {
	late := time.NewTimer(restTime)
	defer late.Stop()
	for {
		select {
		case m, ok := <-l.messages:
			if !ok {
				return list
			}
			list = append(list, m)
		case <-late.C:
			_ = l.conn.Close() // ends the reader
			for m := range l.messages {
				list = append(list, m)
			}
			return list
		}
	}
}

// An end is how a server has ended.
type end struct {
	how    string
	status exitcode.Code
	killed bool // by SIGKILL, or it cannot be waited for, which is the same
	ready  bool
	lived  time.Duration // since it was ready
}

// served says whether it has done what it was started for.
func (e end) served() bool { return e.ready && (e.killed || e.lived >= soon) }

func (l *life) end() end {
	_ = l.conn.Close()
	e := end{how: "it cannot be waited for", status: exitcode.Failure, killed: true}
	if e.ready = !l.ready.IsZero(); e.ready {
		e.lived = time.Since(l.ready)
	}
	ctx, cancel := context.WithTimeout(context.Background(), restTime)
	defer cancel()
	select {
	case <-l.reaped:
		st := l.cmd.ProcessState
		e.how, e.killed = st.String(), false
		if ws, ok := st.Sys().(syscall.WaitStatus); ok {
			e.killed = ws.Signaled() && ws.Signal() == syscall.SIGKILL
			e.status = exitcode.Code(max(ws.ExitStatus(), 0))
		}
		if !st.Success() && e.status == exitcode.OK {
			e.status = exitcode.Failure
		}
	case <-ctx.Done():
	}
	return e
}
