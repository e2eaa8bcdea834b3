package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

func newUpgradeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "upgrade MNT",
		Hidden: true,
		Short:  "Have this program go on with a mount",
		Long: `Put this program in the place of the server of a mount, while machines run from it.

The server answers what it was asked, lets go of the connection to the kernel, and runs
this program in its own process, with the options that it was started with. What machines
ask for meanwhile waits, some tenths of a second; no request is lost, and the page cache
stays. Restores that are under way begin anew, and bring what is missing.

Before that the new program checks whether it can go on: it must know what the server
leaves to it, and would have to agree with the kernel on the same things. If not, nothing
is done, and the error says why. The mount must have been made by root with --takeover=auto.

Experimental: it was not shown with machines of KVM or QEMU, nor with two versions of this
program, nor while a store is imported into, cleaned or repacked.` +
			exitStatus(exitcode.NotFound, exitcode.Busy, exitcode.Unsupported, exitcode.ServerGone),
		Example: `  thaw upgrade /mnt/thaw`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(upgrade(cmd.Context(), a, args[0]), "upgrade %s", args[0])
		},
	}
}

// upgraded is what an upgrade has done.
type upgraded struct {
	Mount  string  `json:"mount"`
	PID    int     `json:"pid"`
	Before string  `json:"version_before"`
	Now    string  `json:"version"`
	Took   float64 `json:"seconds"`
}

func upgrade(ctx context.Context, a *app, mnt string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if strings.HasSuffix(program, " (deleted)") {
		return exitcode.Errorf(exitcode.Failure, "%s: this program was removed; run the new one", program)
	}
	m, err := access.Resolve(ctx, mnt)
	if err != nil {
		return err
	}
	server, err := m.Server(ctx)
	if err != nil {
		return err
	}
	before, err := server.Status(ctx)
	if err != nil {
		return err
	}
	if err := server.Upgrade(ctx, program); err != nil {
		return err
	}
	start := time.Now()
	now, err := awaitTakeover(ctx, m.Socket, before.Takeovers)
	if err != nil {
		return exitcode.WithHint(exitcode.ServerGone, err, "its log says why; thaw stats "+m.Root)
	}
	u := upgraded{m.Root, now.PID, before.Version, now.Version, time.Since(start).Seconds()}
	if a.json {
		return a.printJSON(u)
	}
	a.note("%s is served by %s now, before by %s; it took %.2f s", u.Mount, u.Now, u.Before, u.Took)
	return nil
}

const (
	// upgradePatience is how long the new server may take.
	upgradePatience = 40 * time.Second
	upgradeLook     = 20 * time.Millisecond
)

// awaitTakeover waits until another server answers on a socket. Its path stays, and so does, most of the
// time,
// the socket.
func awaitTakeover(ctx context.Context, socket string, before int) (st control.Status, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, upgradePatience, errNoTakeover)
	defer cancel()
	for {
		var c *control.Client
		if c, err = control.Connect(ctx, socket); err == nil {
			st, err = c.Status(ctx)
		}
		if err == nil && st.Takeovers > before {
			return st, nil
		}
		select {
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), errNoTakeover) {
				return st, ctx.Err()
			}
			return st, fmt.Errorf("%w within %v: %w", errNoTakeover, upgradePatience,
				cmp.Or(err, errors.New("the one before still answers")))
		case <-time.After(upgradeLook):
		}
	}
}

var errNoTakeover = errors.New("the new server does not answer")
