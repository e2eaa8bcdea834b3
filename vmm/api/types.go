package api

import (
	"context"

	"github.com/thawfs/thaw/wss/scan"
)

// Status says what a machine is doing.
type Status struct {
	State       string `json:"state"` // "paused", "running" or "ended"
	Error       string `json:"error,omitempty"`
	MemoryBytes uint64 `json:"memory_bytes"` // size of the image
	VCPUs       int    `json:"vcpus"`
	// MappedFrom is the directory of the checkpoint that its memory is mapped from: the one that it was
	// restored from, or the last one that was made of it. Its files must not be changed.
	MappedFrom string `json:"mapped_from,omitempty"`
	// ServerSilentSeconds is how long the mount under its memory has not answered; 0 if that is less
	// than five seconds.
	ServerSilentSeconds float64 `json:"server_silent_seconds,omitempty"`

	Program string            `json:"program"`
	Args    map[string]string `json:"args,omitempty"`
	Units   string            `json:"units"`    // the guest's unit of work
	Ready   bool              `json:"ready"`    // it has filled its memory and does its work
	Done    uint64            `json:"done"`     // units since it was first started
	DoneNow uint64            `json:"done_now"` // units since this process started it

	Seconds float64 `json:"seconds"` // since its first instruction in this process
	// Pages touched and changed since the memory was mapped from MappedFrom.
	TouchedPages *uint64 `json:"touched_pages,omitempty"`
	DirtyPages   *uint64 `json:"dirty_pages,omitempty"`
}

// CheckpointRequest requests a checkpoint.
type CheckpointRequest struct {
	Dir     string `json:"dir"`                // a directory that does not exist yet; absolute
	Stop    bool   `json:"stop,omitempty"`     // end the machine once it is written
	Diff    bool   `json:"diff,omitempty"`     // only the pages that changed since MappedFrom
	NoRemap bool   `json:"no_remap,omitempty"` // do not map the machine's memory from it
	// ScanSeconds is how long the access bits of a running machine are read before the checkpoint, to
	// record the touched pages; 0: not at all. ScanBudget is the share of the guest's time that this
	// may take; 0 means 0.01.
	ScanSeconds float64 `json:"scan_seconds,omitempty"`
	ScanBudget  float64 `json:"scan_budget,omitempty"`
	// TraceSeconds is how long the first touches of a running machine are recorded after the
	// checkpoint; 0: not at all.
	TraceSeconds float64 `json:"trace_seconds,omitempty"`
}

// CheckpointReply says what was written, and how long it took.
type CheckpointReply struct {
	Dir          string  `json:"dir"`
	MemoryBytes  uint64  `json:"memory_bytes"`
	WrittenBytes uint64  `json:"written_bytes"` // bytes of memory written; the rest are holes
	Parent       string  `json:"parent,omitempty"`
	ChangedPages uint64  `json:"changed_pages,omitempty"` // of a differential one: pages in it
	Seconds      float64 `json:"seconds"`

	PauseSeconds  float64 `json:"pause_seconds"` // how long the guest was paused; parts of that:
	StateSeconds  float64 `json:"state_seconds"` // vCPUs stopped, their state read and written
	CopySeconds   float64 `json:"copy_seconds"`  // memory copied
	MarkSeconds   float64 `json:"mark_seconds"`  // tracking of changes started
	RemapSeconds  float64 `json:"remap_seconds"` // memory mapped from the checkpoint
	SyncSeconds   float64 `json:"sync_seconds"`  // all written to disk; meanwhile the guest runs, or
	WaitedForSync bool    `json:"waited_for_sync"`

	Remapped     bool   `json:"remapped"`      // the machine's memory is mapped from it now
	CarriedPages uint64 `json:"carried_pages"` // changed between the copy and the remap
	Note         string `json:"note,omitempty"`

	Scan  *ScanStats  `json:"scan,omitempty"`  // of CheckpointRequest.ScanSeconds
	Trace *TraceStats `json:"trace,omitempty"` // of CheckpointRequest.TraceSeconds
}

// ScanStats is the result and the cost of the scan of access bits before a checkpoint.
type ScanStats struct {
	Pages uint64 `json:"pages"`
	Way   string `json:"way"`
	scan.Stats
}

// TraceStats is the result and the cost of a trace of first touches.
type TraceStats struct {
	Seconds float64 `json:"seconds"`
	Pages   uint64  `json:"pages"`
	Way     string  `json:"way"`
	// Events is the number of events from the tracepoint or from userfaultfd. SilentPages were touched
	// without an event. LostEvents did not fit into the kernel's rings, and DroppedPages did not fit
	// into the record.
	Events       uint64 `json:"events"`
	SilentPages  uint64 `json:"silent_pages"`
	LostEvents   uint64 `json:"lost_events"`
	DroppedPages uint64 `json:"dropped_pages,omitempty"`
	// KernelSeconds is the time that the vCPUs' threads spent in the kernel during the trace, for first
	// touches and for all other exits.
	KernelSeconds float64 `json:"kernel_seconds"`
}

// Metrics are counters of a machine since its process started. They only increase, except those of
// pages, which restart when the memory is mapped from another checkpoint.
type Metrics struct {
	Seconds           float64          `json:"seconds"` // since the first instruction
	VCPUs             []VCPUMetrics    `json:"vcpus"`
	Pauses            uint64           `json:"pauses"` // including those for checkpoints
	PausedSeconds     float64          `json:"paused_seconds"`
	Checkpoints       uint64           `json:"checkpoints"`
	FailedCheckpoints uint64           `json:"failed_checkpoints"`
	LastCheckpoint    *CheckpointReply `json:"last_checkpoint,omitempty"`
	TouchedPages      *uint64          `json:"touched_pages,omitempty"`
	DirtyPages        *uint64          `json:"dirty_pages,omitempty"`
}

// VCPUMetrics are the counters of a vCPU.
type VCPUMetrics struct {
	Exits        map[string]uint64 `json:"exits"`         // by reason
	StallSeconds float64           `json:"stall_seconds"` // time that it waited for pages
}

// Version identifies the server.
type Version struct {
	Name    string `json:"name"`
	API     int    `json:"api"` // APIVersion; it changes if the interface becomes incompatible
	Version string `json:"version"`
}

// APIVersion is the version of this package's interface.
const APIVersion = 1

// ErrorKind classifies errors for the client.
type ErrorKind int

// Kinds of errors.
const (
	Failed   ErrorKind = iota
	Conflict           // the machine's state does not allow it
	NoSpace            // the disk is full
)

// Machine is the machine that a Server controls.
type Machine interface {
	Status() (Status, error)
	Metrics() (Metrics, error)
	Pause() error
	Resume() error
	Checkpoint(ctx context.Context, r CheckpointRequest) (CheckpointReply, error)
	Stop()
	// Kind classifies an error of the methods above.
	Kind(err error) ErrorKind
}

// failure is the body of an answer with an error.
type failure struct {
	Message string `json:"fault_message"`
}
