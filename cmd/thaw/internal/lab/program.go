package lab

import (
	"context"
	"os/exec"

	"github.com/thawfs/thaw/index"
)

// Program is what a lab needs of the program that it is part of.
type Program struct {
	// Command is this program again, with other arguments. The lab uses its commands mount, vm run,
	// vm restore and RawCommand.
	Command func(args ...string) *exec.Cmd
	// StartServer starts a server that Command prepared and returns when it serves its mount, or
	// with what kept it from that; the process has ended then.
	StartServer func(ctx context.Context, server *exec.Cmd) error
	// Import puts a checkpoint directory into a store under a name and makes the store if there is
	// none. All of the checkpoint's working set is taken, however large it is.
	Import func(ctx context.Context, store, dir, name string) (index.ImportStats, error)
	// Drop makes a checkpoint on a mount cold: the pages of its image leave the page cache, and the
	// packs that hold them do so too.
	Drop func(ctx context.Context, mnt, name string) error
	// Note tells the user something, one line.
	Note func(format string, args ...any)
}

// RawCommand is the name of the hidden command that serves a plain checkpoint for the raw methods:
// RawCommand PATH MNT NAME POLICY DISK, see package rawfs.
const RawCommand = "raw-server-of-a-lab"
