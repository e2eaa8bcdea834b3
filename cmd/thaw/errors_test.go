package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/outfile"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err  error
		want exitcode.Code
	}{
		{errors.New("anything"), exitcode.Failure},
		{index.ErrNotStore, exitcode.NotStore},
		{index.ErrLocked, exitcode.Locked},
		{index.ErrNotFound, exitcode.NotFound},
		{index.ErrExists, exitcode.Exists},
		{index.ErrInUse, exitcode.Busy},
		{&index.VersionError{Path: "s", Got: 9, Want: 1}, exitcode.Version},
		{&index.NameError{Name: "..", Why: "begins with a dot"}, exitcode.BadName},
		{&index.ImageError{Path: "m", Why: "empty"}, exitcode.NotImage},
		{&index.CorruptError{}, exitcode.Corrupt},
		{&index.ExportError{Err: &index.CorruptError{}}, exitcode.Damaged},
		{index.ErrReadOnly, exitcode.ReadOnly},
		{index.ErrChanged, exitcode.NotFound},
		{fs.ErrNotMachine, exitcode.WorkingSet},
		{&fs.MountError{Path: "/mnt", Err: errors.New("fusermount exited with code 256\n")}, exitcode.Mount},
		{fs.ErrInUse, exitcode.Busy},
		{&outfile.Error{Path: "set", Err: syscall.ENOSPC}, exitcode.NoSpace},
		{&outfile.Error{Path: "set", Err: syscall.EIO}, exitcode.Failure},
		{wss.ErrBadSet, exitcode.WorkingSet},
		{fs.ErrNotCold, exitcode.NotCold},
		{fs.ErrNothing, exitcode.WorkingSet},
		{fs.ErrBusy, exitcode.Busy},
		{&os.PathError{Op: "write", Path: "p", Err: syscall.ENOSPC}, exitcode.NoSpace},
		{errors.Join(syscall.EDQUOT, index.ErrNotFound), exitcode.NoSpace},
		{exitcode.With(exitcode.MountPoint, index.ErrNotFound), exitcode.MountPoint},
	} {
		err := fmt.Errorf("import x: %w", c.err)
		code, hint := classify(err)
		if code != c.want {
			t.Errorf("%v: %v, want %v", err, code.Name(), c.want.Name())
		}
		// It is the same after it crossed the control socket.
		again := control.ToWire(err, classify).Err()
		code2, hint2 := classify(again)
		if code2 != code || hint2 != hint || again.Error() != err.Error() {
			t.Errorf("%v: on the wire it became %v (%v, %q)", err, again, code2.Name(), hint2)
		}
	}
}

func TestExitCodesAreOneToOne(t *testing.T) {
	codes, names := map[exitcode.Code]bool{}, map[string]bool{}
	last := exitcode.Code(-1)
	for _, e := range exitcode.Table() {
		if codes[e.Code] || names[e.Name] || e.Code <= last || e.Code == 2 || e.Meaning == "" {
			t.Errorf("%d %s: twice, not in order, or not allowed", e.Code, e.Name)
		}
		codes[e.Code], names[e.Name], last = true, true, e.Code
		if exitcode.ByName(e.Name) != e.Code || e.Code.Name() != e.Name {
			t.Errorf("%d %s: not found by name or number", e.Code, e.Name)
		}
	}
}

func TestInterruptedHasItsOwnStatus(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := &app{stdout: io.Discard, stderr: io.Discard}
	if code := a.fail(ctx, fmt.Errorf("import x: %w", ctx.Err())); code != exitcode.Interrupted {
		t.Errorf("status %v", code.Name())
	}
}
