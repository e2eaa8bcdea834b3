package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/holder"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/cmd/thaw/internal/server"
	"github.com/thawfs/thaw/fs"
)

// setTakeover takes the flag --takeover.
func (o *mountOptions) setTakeover() error {
	switch o.takeover {
	case "auto":
	case "off":
		o.Alone = true
	default:
		return exitcode.Errorf(exitcode.Usage, "--takeover=%s: want auto or off", o.takeover)
	}
	return nil
}

// takeOver goes on with the mount of a server before, if this process was given one. False if there is none
// to go on with.
func takeOver(ctx context.Context, a *app, o *mountOptions) (done bool, err error) {
	o.Given = process.InheritedFiles()
	if o.Alone && len(o.Given) == 0 {
		return false, nil
	}
	if o.Holder, err = process.FindHolder(o.Given); err != nil {
		return false, fmt.Errorf("talk to the holder of the mount: %w", err)
	}
	if !o.TakesOver() {
		return false, nil
	}
	if os.Getenv(server.CheckEnv) != "" {
		parent := process.OpenReady()
		err := server.Check(o.Options)
		parent.Tell(err, classify)
		return true, err
	}
	info, err := o.Connection().Info()
	if err == nil && !info.Alive && o.Holder != nil { // it was ended: nobody wants it mounted anew
		return true, errors.Join(exitcode.Errorf(exitcode.ServerGone, "the mount on %s was ended", info.Mount),
			o.Forsake())
	}
	if err != nil || !info.Survivable() {
		if err != nil || info.Alive {
			a.note("the mount on %s cannot be gone on with: %v", o.Mount, cannot(err))
		}
		return false, o.Forsake()
	}
	defer a.lasting()()
	return true, serve(ctx, a, o.Options)
}

func cannot(err error) error {
	if err != nil {
		return err
	}
	return fs.ErrLost
}

// newHolderCommand is the process that keeps a mount when its server dies, and hidden. Its arguments are
// those of the server.
func newHolderCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:                holder.Command + " PATIENCE ARGS...",
		Hidden:             true,
		DisableFlagParsing: true,
		Args:               cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			patience, err := time.ParseDuration(args[0])
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			ready := process.OpenReady()
			defer a.lasting()()
			code, err := holder.Run(holder.Options{Args: args[1:], Patience: patience, Note: a.note}, ready)
			if err != nil {
				return exitcode.With(code, err)
			}
			if code != exitcode.OK {
				return exitcode.Errorf(code, "the server has ended with status %d", code)
			}
			return nil
		},
	}
}
