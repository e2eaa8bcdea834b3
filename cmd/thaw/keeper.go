package main

import (
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

// keeperName is the hidden command that a command which writes to a store starts as the keeper of
// its index.
const keeperName = "keeper-of-an-index"

// newKeeperCommand keeps the index of a store for another command: the database in it may end its
// process, and then ends nothing else.
func newKeeperCommand() *cobra.Command {
	return &cobra.Command{
		Use:    keeperName,
		Hidden: true,
		Args:   cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := index.KeeperMain(args); code != 0 {
				return exitcode.Errorf(exitcode.Code(code), "keeper ended with %d", code)
			}
			return nil
		},
	}
}

func keeperCommand() *exec.Cmd { return selfCommand(keeperName) }
