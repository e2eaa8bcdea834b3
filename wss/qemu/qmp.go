package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// QMPError is QEMU's answer to a command that it refused.
type QMPError struct {
	Command string
	Desc    string `json:"desc"`
}

func (e *QMPError) Error() string { return fmt.Sprintf("qemu: %s: %s", e.Command, e.Desc) }

// ErrGone says that QEMU has closed its control connection: the process has ended.
var ErrGone = errors.New("qemu: the machine's process is gone")

// QMP is a client of QEMU's machine protocol: one JSON object on each line, one command at a time.
// Events in between are ignored. It is safe for use by several goroutines.
type QMP struct {
	conn net.Conn
	mu   sync.Mutex // held for one command and its answer
	in   *bufio.Scanner
}

// NewQMP reads the greeting and leaves negotiation mode. The connection belongs to the result.
func NewQMP(ctx context.Context, conn net.Conn) (*QMP, error) {
	q := &QMP{conn: conn, in: bufio.NewScanner(conn)}
	q.in.Buffer(make([]byte, 64<<10), 4<<20)
	stop := q.deadline(ctx)
	greeted := q.in.Scan()
	stop()
	if !greeted {
		conn.Close()
		return nil, fmt.Errorf("qemu: no greeting: %w", errors.Join(q.in.Err(), ErrGone))
	}
	if err := q.Run(ctx, "qmp_capabilities", nil, nil); err != nil {
		conn.Close()
		return nil, err
	}
	return q, nil
}

// deadline makes reads and writes fail when ctx ends; the function that it returns ends that.
func (q *QMP) deadline(ctx context.Context) (stop func()) {
	detach := context.AfterFunc(ctx, func() { _ = q.conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if detach() {
			_ = q.conn.SetDeadline(time.Time{})
		}
	}
}

// Run executes one command. arguments may be nil; the answer is decoded into result, which may be nil,
// too. If QEMU refuses the command, the error is a *QMPError. If ctx ends the command, the connection
// cannot be used any more.
func (q *QMP) Run(ctx context.Context, command string, arguments, result any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.deadline(ctx)()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	line, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("qemu: %s: %w", command, err)
	}
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return q.lost(ctx, command, err)
	}
	for q.in.Scan() {
		var answer struct {
			Return json.RawMessage `json:"return"`
			Error  *QMPError       `json:"error"`
		}
		if err := json.Unmarshal(q.in.Bytes(), &answer); err != nil {
			return fmt.Errorf("qemu: %s: answer %q: %w", command, q.in.Text(), err)
		}
		switch {
		case answer.Error != nil:
			answer.Error.Command = command
			return answer.Error
		case answer.Return == nil: // an event
		case result == nil:
			return nil
		default:
			return json.Unmarshal(answer.Return, result)
		}
	}
	return q.lost(ctx, command, q.in.Err())
}

func (q *QMP) lost(ctx context.Context, command string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("qemu: %s: %w", command, context.Cause(ctx))
	}
	return fmt.Errorf("qemu: %s: %w", command, errors.Join(err, ErrGone))
}

// Close ends the connection; the machine goes on.
func (q *QMP) Close() error { return q.conn.Close() }

// Status returns the machine's run state: "running", "paused", "postmigrate", "inmigrate",
// "internal-error" and others of QEMU's RunState.
func (q *QMP) Status(ctx context.Context) (string, error) {
	var s struct {
		Status string `json:"status"`
	}
	err := q.Run(ctx, "query-status", nil, &s)
	return s.Status, err
}
