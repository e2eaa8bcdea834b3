package main

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/keys"
	"github.com/thawfs/thaw/cmd/thaw/internal/outfile"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/seal"
	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
)

// class says which errors have an exit code and what to do about them.
type class struct {
	match func(error) bool
	code  exitcode.Code
	hint  string
}

// is matches a sentinel, as matches a type.
func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// classes is the one table from the parts' errors to exit codes. The first match counts.
func classes() []class {
	return []class{
		{func(err error) bool { return as[*outfile.Error](err) && exitcode.IsFull(err) }, exitcode.NoSpace,
			"free some space, or give another place; existing files are unchanged"},
		{is(syscall.ENOSPC), exitcode.NoSpace,
			"free some space and run it again; the store is as it was before"},
		{is(syscall.EDQUOT), exitcode.NoSpace,
			"the disk quota is used up; the store is as it was before"},
		{is(fs.ErrAlreadyMounted), exitcode.MountPoint, `end that mount first with "thaw umount MNT"`},
		{is(fs.ErrNotEmpty), exitcode.MountPoint, "give an empty directory"},
		{is(fs.ErrNotDirectory), exitcode.MountPoint, "give an empty directory"},
		{is(fs.ErrNotMounted), exitcode.NotFound, ""},
		{as[*fs.MountPointError], exitcode.MountPoint, `make an empty directory with "mkdir -p MNT"`},
		{as[*fs.MountError], exitcode.Mount, `"thaw doctor" says what this host can do`},
		{is(index.ErrNotEmpty), exitcode.NotStore,
			`is it the right directory? "thaw init STORE", or import --init, makes a store beside the files in it`},
		{is(index.ErrNoKey), exitcode.Key,
			"give --key-file, --key-command or --key-keyring, or set " + keys.EnvFile +
				`; "thaw key show STORE" says which key`},
		{is(index.ErrWrongKey), exitcode.Key,
			`"thaw key show STORE" says which keys open it, "thaw key id" which one was given`},
		{is(index.ErrNotSealed), exitcode.Key,
			"without a key it can be used as it is; to seal what it has, import that into a new store"},
		{is(seal.ErrLastKey), exitcode.Usage, "give it another one first: thaw key change --keep"},
		{is(index.ErrNotStore), exitcode.NotStore,
			`"thaw init STORE" makes one, and so does the first "thaw import STORE PATH"`},
		{is(index.ErrLocked), exitcode.Locked, "wait for the other command to end"},
		{is(index.ErrReadOnly), exitcode.ReadOnly,
			"ls, inspect, export, check, ws show and mount work; to change it you need write permission"},
		{is(index.ErrChanged), exitcode.NotFound, "run it again for the present checkpoint"},
		{as[*index.VersionError], exitcode.Version,
			"use the thaw that wrote it: export there, import here"},
		{as[*index.NameError], exitcode.BadName,
			"choose 1 to 128 letters, digits, '.', '_' or '-', not beginning with '.' or '-' (--name)"},
		{as[*index.ImageError], exitcode.NotImage,
			"give a checkpoint directory, a file that is the whole memory of a stopped machine, or what another " +
				`VMM saved; "thaw help formats" says what is recognised`},
		{as[*index.ExportError], exitcode.Damaged,
			`"thaw check STORE --repair" restores what has a copy; "thaw export --salvage" writes the rest`},
		{as[*index.CorruptError], exitcode.Corrupt,
			`"thaw check STORE --read-data" says what is damaged`},
		{is(index.ErrInUse), exitcode.Busy, "stop the machines that run from it first"},
		{is(index.ErrExists), exitcode.Exists,
			`choose another name, or give the old one another with "thaw mv"; import can --replace it`},
		{is(index.ErrNotFound), exitcode.NotFound, `"thaw ls STORE" lists the checkpoints`},
		{is(wss.ErrBadSet), exitcode.WorkingSet, ""},
		{is(fs.ErrNotCold), exitcode.NotCold,
			`make it cold with "thaw ws record --reset MNT/NAME", restore a machine from it, record again`},
		{is(fs.ErrNothing), exitcode.WorkingSet,
			"restore a machine from it first, with --restore=lazy or after a reset"},
		{is(fs.ErrNotMachine), exitcode.WorkingSet,
			"reset, restore a machine from it, record again; or use --force to record these reads anyway"},
		{is(fs.ErrInUse), exitcode.Busy, "stop the machines that run from it first"},
		{is(fs.ErrBusy), exitcode.Busy, "stop what uses it first"},
		{is(fs.ErrNotFound), exitcode.NotFound, ""},
		{as[*ram.LostError], exitcode.MemoryLost,
			"the machine is gone; restore it again from a mount whose server lives"},
		{as[*vmm.WrongByteError], exitcode.GuestFailed,
			"the machine read other bytes than it had written: this is a fault of thaw, please report it"},
		{as[*state.FileError], exitcode.BadState, ""},
		{as[*device.StateError], exitcode.BadState, ""},
		{as[*state.ParentError], exitcode.NotFound,
			"put the parent back, where it was or beside the checkpoint"},
		{as[*state.HostError], exitcode.Unsupported, ""},
		{is(context.Canceled), exitcode.Interrupted, ""},
		{is(control.ErrNoServer), exitcode.ServerGone, ""},
		{is(os.ErrPermission), exitcode.Failure, "run it as the owner of that file, or as root"},
	}
}

// classify gives an error its exit code and says what to do about it.
func classify(err error) (exitcode.Code, string) {
	if code, hint, ok := exitcode.Of(err); ok {
		return code, hint
	}
	for _, c := range classes() {
		if c.match(err) {
			return c.code, c.hint
		}
	}
	return exitcode.Failure, ""
}
