package main

import (
	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// newHelperCommand is a process that thaw starts beside itself, and hidden: the keeper of an index,
// because if the database crashes only that process ends; the residency prober of a server, because
// what of a file is in the page cache must be asked by another process than the one that serves it.
func newHelperCommand(name string, main func() int) *cobra.Command {
	return &cobra.Command{
		Use:    name,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if code := main(); code != 0 {
				return exitcode.Errorf(exitcode.Code(code), "%s ended with %d", name, code)
			}
			return nil
		},
	}
}
