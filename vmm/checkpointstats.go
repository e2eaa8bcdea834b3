package vmm

import (
	"time"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/wss/scan"
)

// CheckpointOptions is how to save a machine.
type CheckpointOptions struct {
	// Stop ends the machine when all is written: nothing that the guest does afterwards is lost.
	Stop bool
	// Diff writes only the pages that changed since the checkpoint that the machine is mapped from.
	Diff bool
	// NoRemap leaves the machine's memory mapped from what it is mapped from.
	NoRemap bool
	// Scan looks at the machine's access bits for so long before the checkpoint and records what was
	// touched as its working set; zero: it does not.
	Scan ScanOptions
	// Trace lets the guest go on for so long and records what it touches first, page by page, as the
	// working set of the checkpoint; 0: it does not. It needs the memory mapped from the checkpoint.
	Trace time.Duration

	fileSystem fileSystem // nil: the operating system's
	pieces     int        // limit of remap, 0: MaxRemap
	way        string     // of tracing, even if there is a better one; "": the best
}

// CheckpointStats says what a checkpoint cost.
type CheckpointStats struct {
	Dir          string  `json:"dir"`
	MemoryBytes  uint64  `json:"memory_bytes"`
	WrittenBytes uint64  `json:"written_bytes"` // of memory; the rest are holes
	Parent       string  `json:"parent,omitempty"`
	ChangedPages uint64  `json:"changed_pages,omitempty"` // of a differential one: pages in it
	Seconds      float64 `json:"seconds"`

	// PauseSeconds is how long the guest stood still, in all. Of that:
	PauseSeconds float64 `json:"pause_seconds"`
	StateSeconds float64 `json:"state_seconds"` // to stop the vCPUs, read and write their state
	CopySeconds  float64 `json:"copy_seconds"`  // to copy memory into the page cache
	MarkSeconds  float64 `json:"mark_seconds"`  // to begin counting changes
	RemapSeconds float64 `json:"remap_seconds"` // to map the memory from the checkpoint
	// SyncSeconds is what it took to get all to disk. The guest goes on meanwhile if WaitedForSync
	// is false.
	SyncSeconds   float64 `json:"sync_seconds"`
	WaitedForSync bool    `json:"waited_for_sync"`

	Remapped     bool   `json:"remapped"`      // the machine's memory is mapped from it now
	CarriedPages uint64 `json:"carried_pages"` // changed between the copy and that
	Note         string `json:"note,omitempty"`

	Scan  *ScanStats  `json:"scan,omitempty"`  // of CheckpointOptions.Scan
	Trace *TraceStats `json:"trace,omitempty"` // of CheckpointOptions.Trace
}

// ScanOptions is how the working set before a checkpoint is estimated.
type ScanOptions struct {
	Within time.Duration // what was touched in so long before the checkpoint
	Budget float64       // share of the guest's time; 0: scan.DefaultBudget

	idle scan.IdleOptions // where the host tells of pages, for guests whose tables tell nothing
}

// ScanStats says what a scan of access bits cost the guest.
type ScanStats = api.ScanStats

// TraceStats says how a trace of first touches went.
type TraceStats = api.TraceStats
