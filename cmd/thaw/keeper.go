package main

import (
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

// keeperName is the hidden command that a command which writes to a store starts as the keeper of
// its index.
const keeperName = "keeper-of-an-index"

// newKeeperCommand keeps the index of a store for another command: if the database
// crashes, only this process ends.
func newKeeperCommand() *cobra.Command {
	return &cobra.Command{
		Use:    keeperName,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if code := index.KeeperMain(); code != 0 {
				return exitcode.Errorf(exitcode.Code(code), "keeper ended with %d", code)
			}
			return nil
		},
	}
}

// keeperCommand is that command. It has a process group of its own: a ctrl-C on the terminal reaches
// only the command that it works for, and it ends with that one's pipe.
func keeperCommand() *exec.Cmd {
	cmd := selfCommand(keeperName)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}
