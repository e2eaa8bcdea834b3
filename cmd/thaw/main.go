package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/holder"
	"github.com/thawfs/thaw/cmd/thaw/internal/lab"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/cmd/thaw/internal/server"
	"github.com/thawfs/thaw/cmd/thaw/internal/uffd"
)

// The holder of a mount goes by the main thread of its server, which must therefore do nothing else than
// main:
// see package holder.
func init() {
	if process.Held() {
		runtime.LockOSThread()
	}
}

func main() {
	// What is made here is guest memory or leads to it, also what libraries make and sockets before they
	// have their mode: it is for its owner alone, whatever the user's own mask says.
	unix.Umask(0o077)
	ctx, _ := signal.NotifyContext(context.Background(), endings()...)
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	done := make(chan struct{})
	go a.endAnyway(ctx, done)
	code := a.start(ctx, os.Args)
	close(done)
	os.Exit(code)
}

// endings are the signals that end a command in good order: also the end of its terminal, unless it was
// started to outlive that (nohup).
func endings() []os.Signal {
	list := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
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
	case "mount", holder.Command, lab.RawCommand, "demo", "compare", access.KeeperCommand, server.ProberCommand,
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

// endAnyway ends the process some time after one of the endings, when the command has not ended: it
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
