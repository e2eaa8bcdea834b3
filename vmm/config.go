package vmm

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/state"
)

// DefaultWindow is the default of [Config].Window.
const DefaultWindow = 10 * time.Second

// DefaultCmdline is the default of [Config].Cmdline: the kernel prints to the serial console, and a
// panic resets the machine, which ends it.
const DefaultCmdline = "console=ttyS0 panic=-1"

// Config is the configuration of [Run], [New] and [Restore]. A field that is marked Run or Restore is
// ignored by the others.
type Config struct {
	Guest       guest.Spec      // Run: the program, if there is no kernel
	Kernel      string          // Run: path of a Linux kernel, bzImage or vmlinux
	Initrd      string          // Run: path of its initial RAM disk; "": none
	Cmdline     string          // Run: its command line; "": DefaultCmdline
	MemoryBytes uint64          // Run: size of RAM
	CPUs        int             // Run: number of vCPUs; 0: as many as the guest program needs, or 1 for a kernel
	Disks       []state.Disk    // for a kernel. Restore: replace the disks of the checkpoint; nil: keep them
	Console     io.Writer       // where a kernel's output goes; nil: discarded. The caller closes it
	Input       io.ReadCloser   // the kernel's console input; nil: none. Closed at the end
	API         string          // path of the unix socket of the machine's API; "": none
	Paused      bool            // do not start before a resume request to the API
	For         time.Duration   // stop the machine this long after its first instruction; 0: never
	Window      time.Duration   // Restore: count touched pages for this long from the first instruction
	Requested   time.Time       // Restore: when the user asked for the restore; zero: now
	Count       bool            // Restore: count the prefetched pages before the guest starts (15 ms a GiB)
	ReadAround  bool            // Restore: let the kernel read ahead around a fault
	NoTables    bool            // Restore: do not read the guest's page tables before it starts (guesttables.go)
	Clock       state.ClockMode // Restore: how the guest's clock treats the time since the checkpoint
	Force       bool            // Restore: even on a host that lacks features which the machine was started with
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
		return fmt.Errorf("a time is negative: for %s, window %s", c.For, c.Window)
	}
	if c.For > 0 {
		c.Window = min(c.Window, c.For)
	}
	return nil
}
