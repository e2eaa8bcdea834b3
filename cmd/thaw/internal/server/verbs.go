package server

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime/pprof"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/fs"
)

// verbs are what a server does for the commands that call it over the control socket.
type verbs struct{ *Server }

var _ control.Mount = verbs{}

// Status implements control.Mount, as the following methods do.
func (s verbs) Status(context.Context) (control.Status, error) {
	st := control.Status{
		PID: os.Getpid(), Version: s.Version, Store: s.Store, Mount: s.Mount,
		Policy: s.FS.Policy.String(), Detached: s.detached.Load(),
	}
	if st.Detached {
		st.Users, _ = s.fs.Users() // for a message only
	}
	st.Survives, st.WhyNot, st.Takeovers = s.survives()
	if s.disk != nil {
		st.Disk = &control.DiskStatus{Spec: s.disk.Spec(), Stats: s.disk.Stats()}
	}
	return st, nil
}

// Refresh reads what other processes have written, and makes the tree follow.
func (s verbs) Refresh(ctx context.Context) error {
	s.repacker.change()
	if err := s.reader.Refresh(ctx); err != nil {
		return err
	}
	return s.fs.Refresh(ctx)
}

func (s verbs) Release(ctx context.Context, name string) error { return s.fs.Release(ctx, name) }

func (s verbs) CloseIdle(context.Context) error {
	s.fs.CloseIdle()
	return nil
}

// arguments are the words of a call in the stack of a goroutine. They may be numbers that come from a
// machine's memory.
var arguments = regexp.MustCompile(`(?m)\((?:0x|_|\{|\.\.\.)[^\n]*\)$`)

// Goroutines is where each goroutine of this process is, without the arguments of calls.
func (s verbs) Goroutines(context.Context) (string, error) {
	var text bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&text, 2); err != nil {
		return "", err
	}
	return arguments.ReplaceAllString(text.String(), "(...)"), nil
}

func (s verbs) Unmount(ctx context.Context, detach bool) error { return s.take(ctx, detach) }

func (s verbs) Drop(ctx context.Context, r control.DropRequest) error {
	drop := s.fs.Drop
	if r.Record {
		drop = s.fs.StartRecord
	}
	if err := drop(ctx, r.Name); err != nil || !r.Packs {
		return err
	}
	return s.reader.DropCaches(ctx, r.Name)
}

// Record returns the read trace of an image, for a command to make it the working set.
func (s verbs) Record(ctx context.Context, r control.RecordRequest) (control.Recorded, error) {
	d, err := s.reader.Inspect(ctx, r.Name)
	if err != nil {
		return control.Recorded{}, err
	}
	set, err := s.fs.Record(ctx, r.Name, fs.RecordOptions{Force: r.Force})
	if err != nil {
		return control.Recorded{}, err
	}
	var text bytes.Buffer
	if _, err := set.WriteTo(&text); err != nil {
		return control.Recorded{}, fmt.Errorf("working set of %s: %w", r.Name, err)
	}
	return control.Recorded{Store: s.Store, Version: d.Version(), Text: text.Bytes()}, nil
}
