package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
)

// proberName is the hidden command that a server starts as its residency prober.
const proberName = "prober-of-a-server"

// newProberCommand answers a server's questions what of a file is in the page cache: that must be
// asked by another process than the one that serves the file.
func newProberCommand() *cobra.Command {
	return &cobra.Command{
		Use:    proberName,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if code := fs.ProberMain(); code != 0 {
				return exitcode.Errorf(exitcode.Code(code), "prober ended with %d", code)
			}
			return nil
		},
	}
}

// startProber starts the prober; nil, with a word in the log, where the kernel cannot tell residency.
// It ends when it is closed, or with the server: its input ends then.
func startProber(ctx context.Context, log *slog.Logger) *fs.ProcessProber {
	p, err := fs.StartProber(context.WithoutCancel(ctx), "/proc/self/exe", proberName)
	if err != nil {
		log.Info("second opens push again what should be cached", "why", err)
		return nil
	}
	return p
}
