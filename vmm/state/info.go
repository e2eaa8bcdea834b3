package state

import (
	"time"

	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/wss/pagetable"
)

// InfoFormat is the format that info.json names.
const InfoFormat = "thaw-vm-1"

// Info is info.json: what a reader may want to know of a checkpoint without being a VMM. Restoring
// does not read it.
type Info struct {
	Format      string       `json:"format"`
	Created     time.Time    `json:"created"`
	MemoryBytes uint64       `json:"memory_bytes"` // size of the image
	PageSize    uint64       `json:"page_size"`
	RAMBytes    uint64       `json:"ram_bytes"` // of it, without the holes of the address space
	Regions     []ram.Region `json:"regions"`
	VCPUs       int          `json:"vcpus"`
	// Parent is the checkpoint that the machine was mapped from. A differential checkpoint has only
	// the pages that changed since.
	Parent       string    `json:"parent,omitempty"`
	Differential bool      `json:"differential,omitempty"`
	ChangedPages uint64    `json:"changed_pages,omitempty"`
	Guest        GuestInfo `json:"guest"`
	// Paging says where the guest's page tables are, so that an import can lay out the image by them;
	// nil: the guest is not in 64-bit mode.
	Paging *pagetable.Info `json:"paging,omitempty"`
}

// GuestInfo says what the guest was doing.
type GuestInfo struct {
	Program string            `json:"program"`
	Args    map[string]string `json:"args,omitempty"`
	Units   string            `json:"units"`
	Done    uint64            `json:"done"`  // units since it was first started
	Ready   bool              `json:"ready"` // it had filled its memory
}
