package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm/api"
)

func newVMCheckpointCommand(a *app) *cobra.Command {
	var stop bool
	cmd := &cobra.Command{
		Use:   "checkpoint SOCK DIR",
		Short: "Save a machine into a checkpoint directory",
		Long: `Save the machine behind SOCK into the new directory DIR: "memory", "state" and
"info.json". DIR appears complete or not at all. The machine stands still meanwhile and
goes on afterwards, also when saving fails; with --stop it ends once it is saved.` +
			exitStatus(exitcode.NotFound, exitcode.Exists, exitcode.Busy),
		Example: `  thaw vm checkpoint /tmp/vm.sock /tmp/saved
  thaw import /srv/store /tmp/saved --name web-1`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Lstat(args[1]); err == nil {
				return exitcode.WithHint(exitcode.Exists,
					fmt.Errorf("vm checkpoint: %s exists already", args[1]), "give a directory that does not")
			}
			rep, err := api.NewClient(args[0]).Checkpoint(cmd.Context(),
				api.CheckpointRequest{Dir: args[1], Stop: stop})
			if err != nil {
				return machineError("checkpoint", err)
			}
			if a.json {
				return a.printJSON(rep)
			}
			a.printf("%s: %s of memory, %s written, in %.3f s (paused for %.3f s)\n", rep.Dir,
				size(int64(rep.MemoryBytes)), size(int64(rep.WrittenBytes)), rep.Seconds, rep.PauseSeconds)
			return nil
		},
	}
	cmd.Flags().BoolVar(&stop, "stop", false, "end the machine once it is saved")
	return cmd
}

// guestArgs prints the options of a guest program as a user writes them.
func guestArgs(args map[string]string) string {
	var s string
	for _, k := range sortedKeys(args) {
		s += fmt.Sprintf(" %s=%s", k, args[k])
	}
	return s
}
