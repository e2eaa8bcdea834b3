package fs

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Policy is what opening a memory file brings into the page cache before the open returns.
type Policy int

const (
	// PolicyWorkingSet brings so much of the working set that the rest, which follows while the guest
	// runs, comes before it is wanted; nothing where there is no set.
	PolicyWorkingSet Policy = iota
	// PolicyEager brings all of the image, zero pages included.
	PolicyEager
	// PolicyLazy brings nothing: every page comes at its first touch.
	PolicyLazy
	// PolicyWorkingSetFull brings all of the working set; nothing where there is none.
	PolicyWorkingSetFull
)

// bySet says that a policy brings the working set.
func (p Policy) bySet() bool { return p == PolicyWorkingSet || p == PolicyWorkingSetFull }

// whole is the policy that brings the same pages in the end, and waits for all of them.
func (p Policy) whole() Policy {
	if p.bySet() {
		return PolicyWorkingSetFull
	}
	return p
}

// String is the word of the command line.
func (p Policy) String() string {
	switch p {
	case PolicyWorkingSet:
		return "working-set"
	case PolicyEager:
		return "eager"
	case PolicyLazy:
		return "lazy"
	case PolicyWorkingSetFull:
		return "working-set-full"
	}
	return fmt.Sprintf("Policy(%d)", int(p))
}

// ParsePolicy is the inverse of String.
func ParsePolicy(s string) (Policy, error) {
	for _, p := range []Policy{PolicyWorkingSet, PolicyWorkingSetFull, PolicyEager, PolicyLazy} {
		if s == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("unknown restore policy %q: want working-set, working-set-full, eager or lazy", s)
}

// Options say how a store is mounted. The zero value is a good one.
type Options struct {
	// Policy is the restore policy that an open of memory follows.
	Policy Policy
	// CapTime is how long an open waits for its prefetch at most; the rest is brought while the
	// guest runs already. 0: as long as it takes.
	CapTime time.Duration
	// CapBytes is how much an open brings at most before it returns. 0: all.
	CapBytes int64
	// RecordWindow is how long after the first open of a cold image reads are recorded for its
	// working set. 0: 10 s.
	RecordWindow time.Duration
	// Log gets errors and warnings. nil: nothing is logged.
	Log *slog.Logger
	// Rights say who may use the mount besides the user who serves it.
	Rights Rights
	// Mounter mounts where this process may not, and returns the open device of the connection, which
	// nobody else may keep. MountFor is what it does. nil: Mount itself mounts.
	Mounter func(ctx context.Context) (device int, err error)
	// TakeOver keeps what another server needs to go on with the mount: see Server.Connection. It takes a
	// mount that Mount made itself.
	TakeOver bool
	// ReadOnly makes the kernel refuse every open for writing, those of clones' memory too.
	ReadOnly bool
	// Source is what the table of mounts shows as what is mounted. "": thaw.
	Source string
	// ReadAhead is how far the kernel reads ahead of and around faults, in bytes, at most 128 KiB.
	// 0 means 4096. More is for stores that only show a file as it is: then the server pushes
	// nothing by itself, and a READ is not a fault.
	ReadAhead int
	// NoPush answers READs and pushes nothing beside or ahead of them. It is for measurements.
	NoPush bool
	// Workers is the number of goroutines that decode and push for one prefetch. 0: 2, or the
	// number of CPUs if that is more, but 4 at most.
	Workers int
	// Lessons keep what restores teach about the head start that their images need. nil: the server
	// remembers it as long as it runs.
	Lessons Lessons
	// Asked keeps what machines have asked for. nil: nobody does.
	Asked Asked
	// Learned keeps what restores teach about working sets. nil: nothing is learned.
	Learned Learned
	// Proved is called when a set that was learned has proved itself, and is to be made that of the
	// checkpoint: with each restore until it is. It must return at once. nil: nobody is told.
	Proved func(c Checkpoint)
	// LearnQuiet is how long a machine must ask for nothing until the watching of its restore ends. 0: 2 s.
	LearnQuiet time.Duration
	// Fill is how many bytes a second of the rest of an image are brought while nothing is asked for.
	// 0: none.
	Fill int64
	// FillLarge also fills images that are larger than half of the host's memory.
	FillLarge bool
	// Filled is called when all of an image, or of a clone of it, is in the page cache because of Fill,
	// once for each time that it was cold. nil: nobody is told.
	Filled func(name, clone string, bytes uint64)
	// Prober asks the kernel whether a file is still in the page cache, for second opens. nil:
	// they push what was there again. Mount does not close it.
	Prober Prober
	// Collectors are shown in the metrics beside the server's own.
	Collectors []prometheus.Collector
	// ControlSocket is where .thaw/socket points to. Empty: there is none.
	ControlSocket string
}

// withDefaults fills in what was left out.
func (o Options) withDefaults(cpus int) Options {
	if o.RecordWindow <= 0 {
		o.RecordWindow = 10 * time.Second
	}
	if o.LearnQuiet <= 0 {
		o.LearnQuiet = watchQuiet
	}
	o.Source = cmp.Or(o.Source, "thaw")
	o.ReadAhead = max(o.ReadAhead, PageSize)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Workers <= 0 {
		o.Workers = min(max(cpus, 2), 4)
	}
	return o
}
