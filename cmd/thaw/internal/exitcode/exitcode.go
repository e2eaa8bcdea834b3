// Package exitcode has the table of thaw's exit statuses.
//
// Scripts depend on these numbers: the meaning of a number never changes, and a failure that has
// its own number never goes back to the general one. An error carries its code through any
// wrapping ([With], [Of]); code that returns an error which a script may distinguish gives it a
// code, all other errors end as [Failure].
package exitcode

import (
	"errors"
	"fmt"
	"syscall"
)

// Code is the exit status of the process.
type Code int

// The table. `thaw help exit-codes` prints it from [Table].
const (
	OK      Code = 0
	Failure Code = 1
	// 2 is what the Go runtime uses for a panic; thaw never uses it itself.
	Partial     Code = 3
	Usage       Code = 4
	NotStore    Code = 10
	Locked      Code = 11
	Corrupt     Code = 12
	Version     Code = 13
	Mount       Code = 14
	MountPoint  Code = 15
	NotFound    Code = 16
	Exists      Code = 17
	BadName     Code = 18
	NotImage    Code = 19
	NoSpace     Code = 20
	Busy        Code = 21
	Unsupported Code = 22
	ServerGone  Code = 23
	NotCold     Code = 24
	WorkingSet  Code = 25
	ReadOnly    Code = 26
	Damaged     Code = 27
	Key         Code = 28
	MemoryLost  Code = 30
	GuestFailed Code = 31
	BadState    Code = 32
	Handshake   Code = 33
	Interrupted Code = 130
)

// Entry is one row of the table.
type Entry struct {
	Code    Code
	Name    string // short, stable: it is also the error's name in JSON and on the control socket
	Meaning string
}

// Table lists every code that thaw ends with, in ascending order.
func Table() []Entry {
	return []Entry{
		{OK, "ok", "success"},
		{Failure, "failure", "any other failure"},
		{Partial, "partial", "part of the work was done, part failed (the messages say which)"},
		{Usage, "usage", "the command line is wrong"},
		{NotStore, "not-a-store", "the directory is missing or is not a store"},
		{Locked, "locked", "another command writes to the store, or a server serves it"},
		{Corrupt, "corrupt", "damage was found in the store, or bytes did not verify"},
		{Version, "version", "written by another version of thaw in a format unknown to this one"},
		{Mount, "mount", "mounting or unmounting failed"},
		{MountPoint, "mount-point", "the mount point is missing, not a directory, or not empty"},
		{NotFound, "not-found", "no such checkpoint, file or machine, or no thaw mount at this path"},
		{Exists, "exists", "the name or the target exists already"},
		{BadName, "bad-name", "not a usable checkpoint name"},
		{NotImage, "not-an-image", "the file is not a memory image"},
		{NoSpace, "no-space", "the disk is full"},
		{Busy, "busy", "in use: an image, a mount; or the machine's state does not allow it"},
		{Unsupported, "unsupported", "this host lacks something that the command needs"},
		{ServerGone, "server-gone", "the server of the mount, or the machine, died or does not answer"},
		{NotCold, "not-cold", "the image was not cold, so its reads are not a working set"},
		{WorkingSet, "bad-working-set", "the working set is malformed, empty, or not one of this image"},
		{ReadOnly, "read-only", "the store cannot be written: read-only file system, or no permission"},
		{Damaged, "damaged-checkpoint", "the checkpoint has lost pages or files (the message says which)"},
		{Key, "key", "the key of a sealed store is missing or wrong, or it is not sealed"},
		{MemoryLost, "memory-lost", "a machine lost its memory (its mount's server died)"},
		{GuestFailed, "guest-failed", "the guest found a wrong byte in its memory, or failed"},
		{BadState, "bad-state", "the machine's state file is malformed or does not fit this host"},
		{Handshake, "bad-handshake", "what a VMM sent to be served is malformed, or not of this checkpoint"},
		{Interrupted, "interrupted", "stopped by SIGINT, SIGTERM or SIGHUP before the work was done"},
	}
}

// Name of the code in the table; "failure" for a number that the table does not have.
func (c Code) Name() string {
	for _, e := range Table() {
		if e.Code == c {
			return e.Name
		}
	}
	return "failure"
}

// ByName finds a code by its name; Failure for a name that the table does not have.
func ByName(name string) Code {
	for _, e := range Table() {
		if e.Name == name {
			return e.Code
		}
	}
	return Failure
}

// Error is an error with an exit code and, where there is something to be done about it, a hint:
// one sentence that tells the user what to do.
type Error struct {
	Code Code
	Hint string
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// With gives err a code; nil stays nil.
func With(code Code, err error) error { return WithHint(code, err, "") }

// WithHint gives err a code and a hint; nil stays nil.
func WithHint(code Code, err error, hint string) error {
	if err == nil {
		return nil
	}
	return &Error{Code: code, Hint: hint, Err: err}
}

// Errorf is fmt.Errorf with a code.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Of returns the code and the hint that an error carries; ok is false where it carries none.
func Of(err error) (code Code, hint string, ok bool) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code, e.Hint, true
	}
	return Failure, "", false
}

// Has says whether an error carries a code.
func Has(err error, code Code) bool {
	got, _, ok := Of(err)
	return ok && got == code
}

// IsFull says whether an error means that the disk, or the user's share of it, is full.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
