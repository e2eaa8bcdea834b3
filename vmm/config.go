package vmm

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/state"
)

// DefaultWindow is how long after a restore pages are counted if nothing is said.
const DefaultWindow = 10 * time.Second

// DefaultCmdline is the command line of a kernel if none is given: it prints to the serial console,
// and a panic resets the machine, which ends it.
const DefaultCmdline = "console=ttyS0 panic=-1"

// Config is what [Run] and [Restore] are told.
type Config struct {
	Guest       guest.Spec      // Run: the program, if there is no kernel
	Kernel      string          // Run: path of a Linux kernel, bzImage or vmlinux
	Initrd      string          // Run: path of its initial RAM disk; "": none
	Cmdline     string          // Run: its command line; "": DefaultCmdline
	MemoryBytes uint64          // Run: RAM
	CPUs        int             // Run: vCPUs; 0: as many as the program is for, 1 for a kernel
	Disks       []state.Disk    // of a kernel. Restore: in place of those at the checkpoint; nil: those
	Console     io.Writer       // what a kernel prints; nil: nowhere. It is closed by its owner
	Input       io.ReadCloser   // what is typed; nil: nothing. Closed at the end
	API         string          // path of a unix socket to drive the machine by; "": none
	Paused      bool            // do not start until the API says resume
	For         time.Duration   // stop so long after the first instruction; 0: run until it ends
	Window      time.Duration   // Restore: count pages so long after the first instruction
	Requested   time.Time       // Restore: when the user asked for it; zero: now
	NoCount     bool            // Restore: do not find out what was prefetched; saves the time for it
	ReadAround  bool            // Restore: leave it to the kernel what comes with a page (see load)
	NoTables    bool            // Restore: do not read the guest's page tables first (guesttables.go)
	Clock       state.ClockMode // Restore: what the guest's clock does about the time since
	Force       bool            // Restore: also on a host that lacks what the machine was told of
	Log         *slog.Logger
	// Started, if not nil, is called when the machine is set up and the API answers.
	Started func()
}

func (c *Config) defaults() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Requested.IsZero() {
		c.Requested = time.Now()
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.For < 0 || c.Window < 0 {
		return fmt.Errorf("a time below zero: for %s, window %s", c.For, c.Window)
	}
	if c.For > 0 {
		c.Window = min(c.Window, c.For)
	}
	return nil
}
