package vmm

import "time"

// checkpointOptions is how to save a machine.
type checkpointOptions struct {
	// Stop ends the machine when all is written: nothing that the guest does afterwards is lost.
	Stop bool
	// Diff writes only the pages that changed since the checkpoint that the machine is mapped from.
	Diff bool
	// NoRemap leaves the machine's memory mapped from what it is mapped from.
	NoRemap bool
	// Scan looks at the machine's access bits for so long before the checkpoint and records what was
	// touched as its working set; zero: it does not.
	Scan scanOptions
	// Trace lets the guest go on for so long and records what it touches first, page by page, as the
	// working set of the checkpoint; 0: it does not. It needs the memory mapped from the checkpoint.
	Trace time.Duration

	fileSystem fileSystem // nil: the operating system's
	pieces     int        // limit of a remap, 0: ram.MaxRemap
	way        string     // of tracing, even if there is a better one; "": the best
}

// scanOptions is how the working set before a checkpoint is estimated.
type scanOptions struct {
	Within time.Duration // what was touched in so long before the checkpoint
	Budget float64       // share of the guest's time; 0: scan.DefaultBudget
}
