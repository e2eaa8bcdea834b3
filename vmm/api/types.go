package api

import "context"

// Status is what a machine is doing.
type Status struct {
	State       string `json:"state"` // "paused", "running" or "ended"
	Error       string `json:"error,omitempty"`
	MemoryBytes uint64 `json:"memory_bytes"` // size of the image
	VCPUs       int    `json:"vcpus"`
	Restored    string `json:"restored,omitempty"` // directory that it was restored from

	Program string            `json:"program"`
	Args    map[string]string `json:"args,omitempty"`
	Units   string            `json:"units"`    // what the guest counts
	Ready   bool              `json:"ready"`    // it has filled its memory and works
	Done    uint64            `json:"done"`     // units since it was first started
	DoneNow uint64            `json:"done_now"` // units since this process started it

	Seconds float64 `json:"seconds"` // since its first instruction in this process
	// Pages that a restored machine has touched and changed; nil for one that was not restored.
	TouchedPages *uint64 `json:"touched_pages,omitempty"`
	DirtyPages   *uint64 `json:"dirty_pages,omitempty"`
}

// CheckpointRequest asks for a checkpoint.
type CheckpointRequest struct {
	Dir  string `json:"dir"`            // a directory that does not exist yet; absolute
	Stop bool   `json:"stop,omitempty"` // end the machine once it is written
}

// CheckpointReply says what was written.
type CheckpointReply struct {
	Dir          string  `json:"dir"`
	MemoryBytes  uint64  `json:"memory_bytes"`
	WrittenBytes uint64  `json:"written_bytes"` // of memory; the rest are holes
	Seconds      float64 `json:"seconds"`
	PauseSeconds float64 `json:"pause_seconds"` // how long the guest stood still
}

// Machine is what the server drives.
type Machine interface {
	Status() (Status, error)
	Pause() error
	Resume() error
	Checkpoint(ctx context.Context, r CheckpointRequest) (CheckpointReply, error)
	Stop()
	// Conflict says whether an error of the above means that the machine's state does not allow it.
	Conflict(err error) bool
}

type failure struct {
	Error string `json:"error"`
}
