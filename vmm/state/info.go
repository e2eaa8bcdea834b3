package state

import (
	"time"

	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/wss/pagetable"
)

// InfoFormat is the value of "format" in info.json.
const InfoFormat = "thaw-vm-1"

// Info is the contents of info.json: a description of a checkpoint for people and for other programs. A
// restore does not read it.
type Info struct {
	Format      string       `json:"format"`
	Created     time.Time    `json:"created"`
	MemoryBytes uint64       `json:"memory_bytes"` // size of the image
	PageSize    uint64       `json:"page_size"`
	RAMBytes    uint64       `json:"ram_bytes"` // size of RAM: the image without the holes of the address space
	Regions     []ram.Region `json:"regions"`
	VCPUs       int          `json:"vcpus"`
	// Parent is the checkpoint that the machine's memory was mapped from. A differential checkpoint has
	// only the pages that changed since then.
	Parent       string    `json:"parent,omitempty"`
	Differential bool      `json:"differential,omitempty"`
	ChangedPages uint64    `json:"changed_pages,omitempty"`
	Guest        GuestInfo `json:"guest"`
	// Paging says where the guest's page tables are, so that an import can order the image by them;
	// nil: the guest is not in 64-bit mode.
	Paging *pagetable.Info `json:"paging,omitempty"`
}

// GuestInfo says what the guest was doing.
type GuestInfo struct {
	Program string            `json:"program"`
	Args    map[string]string `json:"args,omitempty"`
	Units   string            `json:"units"`
	Done    uint64            `json:"done"`  // units of work since it was first started
	Ready   bool              `json:"ready"` // it had filled its memory
}
