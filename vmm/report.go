package vmm

import (
	"time"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/meter"
	"github.com/thawfs/thaw/wss"
)

// Report is the result of a run of a machine.
type Report struct {
	Guest       guest.Spec     `json:"guest"`
	MemoryBytes uint64         `json:"memory_bytes"`
	GuestPages  uint64         `json:"guest_pages"` // of the image
	End         string         `json:"end"`         // finished, power-off, reset, stopped, time, interrupted, …
	RunSeconds  float64        `json:"run_seconds"` // from the first instruction to the end
	Done        uint64         `json:"done"`        // units since the guest was first started
	Progress    meter.Progress `json:"progress"`    // in this run
	Restore     *Restored      `json:"restore,omitempty"`
	// Stalls says when each vCPU waited for pages.
	Stalls []meter.VCPUStalls `json:"stalls,omitempty"`
	Notes  []string           `json:"notes,omitempty"` // what this host could not do
}

// Restored is the part of the report about a restore. Times are in seconds since [Config].Requested.
type Restored struct {
	Dir string `json:"dir"`
	// OpenSeconds is when the open of the memory file returned, that is, when the prefetch was done.
	OpenSeconds             float64 `json:"open_seconds"`
	FirstInstructionSeconds float64 `json:"first_instruction_seconds"` // 0: it never ran
	// CountSeconds is the part of FirstInstructionSeconds that was spent counting the prefetched pages.
	CountSeconds float64 `json:"count_seconds"`

	// PageTablePages is how many pages of page tables were read before the guest ran; 0 if its memory
	// is not on a mount.
	PageTablePages   uint64  `json:"page_table_pages"`
	PageTableSeconds float64 `json:"page_table_seconds"`

	// Counts is nil if the prefetched pages are not known.
	Counts       *wss.Counts `json:"counts,omitempty"`
	Exact        bool        `json:"exact"`          // neighbours of touched pages do not count
	Window       float64     `json:"window_seconds"` // the counts are of this time after the first instruction
	TouchedPages uint64      `json:"touched_pages"`
	DirtyPages   uint64      `json:"dirty_pages"`

	Prefetched *wss.Bitmap `json:"-"`
	Touched    *wss.Bitmap `json:"-"` // within the window
	Dirty      *wss.Bitmap `json:"-"`
}

// count counts the touched pages of a restored machine, once. l may be nil: the machine was not restored.
func (l *loaded) count() {
	if l == nil || l.counted || l.firstInstruction().IsZero() {
		return
	}
	l.counted, l.window = true, time.Since(l.firstInstruction())
	var err error
	if l.touched, l.dirty, err = l.mem.ScanAll(); err != nil {
		l.note("touched pages are not known: " + err.Error())
	}
}

func (m *Machine) report(cfg Config, l *loaded, end string) *Report {
	first := m.firstInstruction()
	ports := m.ports.snapshot()
	r := &Report{Guest: m.facts.Guest, MemoryBytes: m.mem.Size(), GuestPages: m.mem.Size() / pageSize,
		End: end, Done: ports.Done, Progress: m.ports.progress(m.program.Units)}
	if !first.IsZero() {
		r.RunSeconds = time.Since(first).Seconds()
	}
	if l == nil {
		return r
	}
	r.Notes = l.notes
	r.Restore = &Restored{Dir: l.dir, Exact: l.exact, PageTablePages: l.tables,
		PageTableSeconds: l.walking.Seconds(), CountSeconds: l.counting.Seconds(),
		OpenSeconds: l.opened.Sub(cfg.Requested).Seconds(), Prefetched: l.prefetched,
		Touched: l.touched, Dirty: l.dirty, Window: l.window.Seconds()}
	if !first.IsZero() {
		r.Restore.FirstInstructionSeconds = first.Sub(cfg.Requested).Seconds()
	}
	if l.touched == nil {
		return r
	}
	r.Restore.TouchedPages, r.Restore.DirtyPages = l.touched.Count(), l.dirty.Count()
	if l.prefetched != nil {
		counts := wss.Count(l.prefetched, l.touched, l.window)
		r.Restore.Counts = &counts
	}
	return r
}

// Values of [Report].End.
const (
	endFinished    = "finished"    // the guest program did all its units
	endPowerOff    = "power-off"   // the kernel switched the machine off
	endReset       = "reset"       // the kernel reset it
	endStopped     = "stopped"     // by the API
	endTime        = "time"        // Config.For is over
	endInterrupted = "interrupted" // the context ended
	endFailed      = "failed"      // see the error
)
