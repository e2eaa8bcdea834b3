package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/lab"
	"github.com/thawfs/thaw/cmd/thaw/internal/server"
	"github.com/thawfs/thaw/cmd/thaw/internal/uffd"
)

func main() {
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	done := make(chan struct{})
	go a.endAnyway(ctx, done)
	code := a.start(ctx, os.Args)
	close(done)
	os.Exit(code)
}

// How long a command may take to end by itself after a signal.
const (
	readerPatience  = time.Second
	writerPatience  = 5 * time.Second  // what it had not committed is removed, now or later
	machinePatience = 10 * time.Second // once the machine runs
	forEver         = -time.Second     // others depend on it: it takes the time that it needs
)

// patienceWith says how long a command may take.
func patienceWith(cmd *cobra.Command) time.Duration {
	switch cmd.Name() {
	case "mount", lab.RawCommand, "demo", "compare", access.KeeperCommand, server.ProberCommand,
		uffd.GuardCommand:
		return forEver
	case "uffd":
		return machinePatience
	case "init", "import", "mv", "rm", "gc", "repack", server.RepackCommand, server.LearnerCommand,
		"check", "record", "export", "checkpoint":
		return writerPatience
	}
	return readerPatience
}

// endAnyway ends the process some time after SIGINT or SIGTERM, when the command has not ended: it
// hangs in a system call, as of a file on a mount whose server does not answer.
func (a *app) endAnyway(ctx context.Context, done <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-done:
		return
	}
	patience := time.Duration(a.patience.Load())
	if patience == forEver {
		return
	}
	select {
	case <-time.After(patience):
		os.Exit(int(a.fail(ctx, exitcode.WithHint(exitcode.Interrupted,
			fmt.Errorf("stopped: it did not end within %v", patience),
			"does it wait for the server of a mount? "+control.StoppedHint("MNT")))))
	case <-done:
	}
}
