package api

import (
	"context"

	"github.com/thawfs/thaw/wss/scan"
)

// Status is what a machine is doing.
type Status struct {
	State       string `json:"state"` // "paused", "running" or "ended"
	Error       string `json:"error,omitempty"`
	MemoryBytes uint64 `json:"memory_bytes"` // size of the image
	VCPUs       int    `json:"vcpus"`
	// MappedFrom is the checkpoint that its memory is mapped from: the one that it was restored from,
	// or the last one that was made of it. The directory has to stay as it is.
	MappedFrom string `json:"mapped_from,omitempty"`
	// ServerSilentSeconds is how long the mount under its memory has not answered, if that is long.
	ServerSilentSeconds float64 `json:"server_silent_seconds,omitempty"`

	Program string            `json:"program"`
	Args    map[string]string `json:"args,omitempty"`
	Units   string            `json:"units"`    // what the guest counts
	Ready   bool              `json:"ready"`    // it has filled its memory and works
	Done    uint64            `json:"done"`     // units since it was first started
	DoneNow uint64            `json:"done_now"` // units since this process started it

	Seconds float64 `json:"seconds"` // since its first instruction in this process
	// Pages touched and changed since the memory was mapped from MappedFrom.
	TouchedPages *uint64 `json:"touched_pages,omitempty"`
	DirtyPages   *uint64 `json:"dirty_pages,omitempty"`
}

// CheckpointRequest asks for a checkpoint.
type CheckpointRequest struct {
	Dir     string `json:"dir"`                // a directory that does not exist yet; absolute
	Stop    bool   `json:"stop,omitempty"`     // end the machine once it is written
	Diff    bool   `json:"diff,omitempty"`     // only the pages that changed since MappedFrom
	NoRemap bool   `json:"no_remap,omitempty"` // do not map the machine's memory from it
	// ScanSeconds looks at the access bits of a running machine for so long before the checkpoint,
	// within ScanBudget, a share of the guest's time (0: 0.01), and records what was touched.
	ScanSeconds float64 `json:"scan_seconds,omitempty"`
	ScanBudget  float64 `json:"scan_budget,omitempty"`
	// TraceSeconds lets a running machine go on for so long and records what it touches first.
	TraceSeconds float64 `json:"trace_seconds,omitempty"`
}

// CheckpointReply says what was written, and what it cost.
type CheckpointReply struct {
	Dir          string  `json:"dir"`
	MemoryBytes  uint64  `json:"memory_bytes"`
	WrittenBytes uint64  `json:"written_bytes"` // of memory; the rest are holes
	Parent       string  `json:"parent,omitempty"`
	ChangedPages uint64  `json:"changed_pages,omitempty"` // of a differential one: pages in it
	Seconds      float64 `json:"seconds"`

	PauseSeconds  float64 `json:"pause_seconds"` // how long the guest stood still; of that:
	StateSeconds  float64 `json:"state_seconds"` // vCPUs stopped, their state read and written
	CopySeconds   float64 `json:"copy_seconds"`  // memory copied
	MarkSeconds   float64 `json:"mark_seconds"`  // counting of changes begun
	RemapSeconds  float64 `json:"remap_seconds"` // memory mapped from the checkpoint
	SyncSeconds   float64 `json:"sync_seconds"`  // all brought to disk; meanwhile the guest runs, or
	WaitedForSync bool    `json:"waited_for_sync"`

	Remapped     bool   `json:"remapped"`      // the machine's memory is mapped from it now
	CarriedPages uint64 `json:"carried_pages"` // changed between the copy and that
	Note         string `json:"note,omitempty"`

	Scan  *ScanStats  `json:"scan,omitempty"`  // of CheckpointRequest.ScanSeconds
	Trace *TraceStats `json:"trace,omitempty"` // of CheckpointRequest.TraceSeconds
}

// ScanStats says what the scan of access bits before a checkpoint found and cost.
type ScanStats struct {
	Pages uint64 `json:"pages"`
	Way   string `json:"way"`
	scan.Stats
}

// TraceStats says how a trace of first touches went.
type TraceStats struct {
	Seconds float64 `json:"seconds"`
	Pages   uint64  `json:"pages"`
	Way     string  `json:"way"`
	// Events is what the tracepoint gave, or userfaultfd; SilentPages were touched, and no event told
	// of them; LostEvents did not fit into the kernel's rings; DroppedPages did not fit into the
	// record.
	Events       uint64 `json:"events"`
	SilentPages  uint64 `json:"silent_pages"`
	LostEvents   uint64 `json:"lost_events"`
	DroppedPages uint64 `json:"dropped_pages,omitempty"`
	// KernelSeconds is the time that the vCPUs' threads spent in the kernel meanwhile, for first
	// touches and for everything else that makes a guest leave.
	KernelSeconds float64 `json:"kernel_seconds"`
}

// Metrics are counters of a machine since its process began. They only grow, but for the pages,
// which begin again whenever the memory is mapped from another checkpoint.
type Metrics struct {
	Seconds           float64          `json:"seconds"` // since the first instruction
	VCPUs             []VCPUMetrics    `json:"vcpus"`
	Pauses            uint64           `json:"pauses"` // those for checkpoints too
	PausedSeconds     float64          `json:"paused_seconds"`
	Checkpoints       uint64           `json:"checkpoints"`
	FailedCheckpoints uint64           `json:"failed_checkpoints"`
	LastCheckpoint    *CheckpointReply `json:"last_checkpoint,omitempty"`
	TouchedPages      *uint64          `json:"touched_pages,omitempty"`
	DirtyPages        *uint64          `json:"dirty_pages,omitempty"`
}

// VCPUMetrics are the counters of a vCPU.
type VCPUMetrics struct {
	Exits        map[string]uint64 `json:"exits"`         // by KVM's name of the reason
	StallSeconds float64           `json:"stall_seconds"` // that it waited for pages
}

// Version says who answers.
type Version struct {
	Name    string `json:"name"`
	API     int    `json:"api"` // 1; another number is another interface
	Version string `json:"version"`
}

// APIVersion is that of this package.
const APIVersion = 1

// ErrorKind sorts errors for the client.
type ErrorKind int

// Kinds.
const (
	Failed   ErrorKind = iota
	Conflict           // the machine's state does not allow it
	NoSpace            // the disk is full
)

// Machine is what the server drives.
type Machine interface {
	Status() (Status, error)
	Metrics() (Metrics, error)
	Pause() error
	Resume() error
	Checkpoint(ctx context.Context, r CheckpointRequest) (CheckpointReply, error)
	Stop()
	// Kind sorts an error of the above.
	Kind(err error) ErrorKind
}

// failure is the body of an answer that says no.
type failure struct {
	Message string `json:"fault_message"`
}
