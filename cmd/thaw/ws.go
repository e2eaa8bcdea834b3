package main

import "github.com/spf13/cobra"

func newWSCommand(a *app) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "ws",
		Short: "Look at, record and set working sets",
		Long: `A working set is the list of pages that a machine touches first after its restore, in
the order in which it touched them. Opening a checkpoint's memory on a mount brings it
into the page cache.`,
	},
		newWSShowCommand(a),
		newWSRecordCommand(a),
		newWSImportCommand(a),
		newWSCombineCommand(a),
		newWSScanCommand(a),
	)
}
