package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm/api"
)

func newVMCommand(a *app) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "vm",
		Short: "Run, save and restore virtual machines with thaw's own VMM",
		Long: `Run virtual machines on KVM, save them, and restore them from a checkpoint directory,
on disk or on a mount alike. "thaw vm run" and "thaw vm restore" stay in the
foreground until the machine ends; with --api SOCK the other commands control it.

  thaw vm run heap --memory 1GiB --api /tmp/vm.sock
  thaw vm checkpoint /tmp/vm.sock /tmp/saved --stop
  thaw vm restore /tmp/saved --for 10s

The socket speaks HTTP with JSON, in the manner of Firecracker:

  GET  /status, /metrics, /version    what the machine is doing, has counted, is
  PUT  /pause, /resume, /stop         answered with the status
  PUT  /checkpoint                    {"dir": "/abs/path", "stop": bool, "diff": bool,
                                       "no_remap": bool}

PUT may be POST. A failure is a status of 400 (makes no sense), 404, 405, 409 (not in this
state), 500 (went wrong) or 507 (disk full) with {"fault_message": "..."}:

  curl --unix-socket /tmp/vm.sock -X PUT http://vm/pause`,
	},
		newVMRunCommand(a),
		newVMRestoreCommand(a),
		newVMCheckpointCommand(a),
		newVMInspectCommand(a),
		newVMActionCommand(a, "status", "Show what a machine is doing", (*api.Client).Status),
		newVMMetricsCommand(a),
		newVMActionCommand(a, "pause", "Stop the vCPUs of a machine", (*api.Client).Pause),
		newVMActionCommand(a, "resume", "Let a paused machine go on", (*api.Client).Resume),
		newVMActionCommand(a, "stop", "End a machine, without saving it", (*api.Client).Stop),
	)
}

// newVMActionCommand makes one of the commands that are answered with the status.
func newVMActionCommand(a *app, verb, short string,
	act func(*api.Client, context.Context) (api.Status, error)) *cobra.Command {
	cmd := newVMSocketCommand(a, verb, act, statusRows)
	cmd.Short = short
	cmd.Long = short + `, and print what it is doing then.

SOCK is what --api of its "thaw vm run" or "thaw vm restore" named.` +
		exitStatus(exitcode.NotFound, exitcode.Busy, exitcode.ServerGone)
	cmd.Example = "  thaw vm " + verb + " /tmp/vm.sock"
	return cmd
}

// newVMSocketCommand makes a command that asks a machine something and shows the answer.
func newVMSocketCommand[T any](a *app, verb string,
	ask func(*api.Client, context.Context) (T, error), rows func(T) lines) *cobra.Command {
	return &cobra.Command{
		Use:  verb + " SOCK",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := askMachine(cmd.Context(), args[0], ask)
			switch {
			case err != nil:
				return machineError(verb, err)
			case a.json:
				return a.printJSON(answer)
			}
			a.printLines(13, rows(answer))
			return nil
		},
	}
}

// askMachine asks a machine something, with a bound in time.
func askMachine[T any](ctx context.Context, sock string,
	ask func(*api.Client, context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, machineAnswer)
	defer cancel()
	return ask(api.NewClient(sock), ctx)
}

// machineAnswer is how long a machine may take to answer; to stop its vCPUs it may have to wait for
// a read of a slow disk.
const machineAnswer = 10 * time.Second

// machineError gives what came over a machine's socket its exit code.
func machineError(verb string, err error) error {
	err = fmt.Errorf("vm %s: %w", verb, err)
	var refused *api.RefusedError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return exitcode.WithHint(exitcode.ServerGone, err, fmt.Sprintf(
			"the machine has not answered for %v: is its process stopped, or does it wait for a mount?",
			machineAnswer))
	case !errors.As(err, &refused):
		return exitcode.WithHint(exitcode.NotFound, err,
			"is it the socket that --api named, and does the machine still run?")
	case refused.Code == http.StatusConflict:
		return exitcode.With(exitcode.Busy, err)
	case refused.Code == http.StatusInsufficientStorage:
		return exitcode.WithHint(exitcode.NoSpace, err, "nothing was saved; the machine goes on")
	}
	return err
}

func statusRows(s api.Status) lines {
	rows := lines{
		{"state", s.State},
		{"memory", size(int64(s.MemoryBytes))},
		{"vCPUs", count(s.VCPUs)},
		{"guest", s.Program + guestArgs(s.Args)},
		{"ready", fmt.Sprint(s.Ready)},
		{"done", fmt.Sprintf("%s %s", count(s.Done), s.Units)},
		{"running for", seconds(time.Duration(s.Seconds * float64(time.Second)))},
	}
	if s.Error != "" {
		rows.add("error", "%s", s.Error)
	}
	if s.TouchedPages != nil && s.DirtyPages != nil {
		rows.add("mapped from", "%s", s.MappedFrom)
		rows.add("touched", "%s pages", count(*s.TouchedPages))
		rows.add("changed", "%s pages", count(*s.DirtyPages))
	}
	if s.ServerSilentSeconds > 0 {
		rows.add("mount", "has not answered for %.0f s", s.ServerSilentSeconds)
	}
	return rows
}

// guestArgs prints the options of a guest program as a user writes them.
func guestArgs(args map[string]string) string {
	var s string
	for _, k := range slices.Sorted(maps.Keys(args)) {
		s += fmt.Sprintf(" %s=%s", k, args[k])
	}
	return s
}
