package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/importer"
)

// stdinPath is the PATH of a command that reads its standard input.
const stdinPath = "-"

// isPipe says whether a path is a named pipe, or what a shell makes of <(COMMAND).
func isPipe(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&os.ModeNamedPipe != 0
}

// openPipe opens a pipe as soon as somebody writes into it. If ctx ends before, the open is left to end with
// this process: it cannot be interrupted.
func openPipe(ctx context.Context, path string, raw bool) (*importer.Source, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(path)
		done <- opened{f, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case o := <-done:
		if o.err != nil {
			return nil, o.err
		}
		src, err := importer.OpenStream(path, stdin{ctx, o.f}, raw)
		if err != nil {
			return nil, errors.Join(err, o.f.Close())
		}
		src.Owns(o.f)
		return src, nil
	}
}

// stdin is the standard input, or another pipe, whose reads end when the context does. A read of a pipe
// cannot be interrupted; so each one waits first, for bytes or for the end of the context.
type stdin struct {
	ctx context.Context
	f   *os.File
}

// Read implements io.Reader.
func (s stdin) Read(p []byte) (int, error) {
	if err := s.wait(); err != nil {
		return 0, err
	}
	return s.f.Read(p)
}

// wait waits until a read does not block.
func (s stdin) wait() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(wake)
	done := make(chan struct{})
	stop := context.AfterFunc(s.ctx, func() {
		defer close(done)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-done // it writes to the eventfd
		}
	}()
	fds := []unix.PollFd{{Fd: int32(s.f.Fd()), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the standard input: %w", err)
		case fds[1].Revents != 0:
			return s.ctx.Err()
		default:
			return nil
		}
	}
}
