package vmm

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/wss"
)

// Loaded is a machine made from a checkpoint, paused before its first instruction.
type Loaded struct {
	*Machine
	Opened     time.Time     // when the open of the memory file returned
	Prefetched *wss.Bitmap   // pages in the page cache now; nil if the kernel does not tell
	Counting   time.Duration // what it took to find that out
	Exact      bool          // the tracker counts touched pages exactly
	Notes      []string      // what this host could not do
}

// Load makes a machine from a checkpoint directory, on disk or on a mount.
//
// The order matters for the time that the user waits. The state is small and comes first, so that a
// machine that cannot be restored costs no prefetch. Opening the memory file then is the request to
// prefetch. What is left afterwards are system calls.
func Load(dir string, log *slog.Logger) (*Loaded, error) { return load(dir, log, true) }

func load(dir string, log *slog.Logger, count bool) (*Loaded, error) {
	sections, err := readStateFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	s, err := decodeSaved(sections)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	if err := checkHost(s.vcpus[0].CPUID); err != nil {
		return nil, err
	}
	mem, err := openMemory(filepath.Join(dir, memoryFile), imageSize(s.facts.Regions))
	if err != nil {
		return nil, err
	}
	l := &Loaded{Opened: time.Now()}
	tracker := newTracker(mem.mapping)
	if l.Exact = tracker.exact(); !l.Exact {
		l.note(log, "touched pages are counted with their neighbours: "+tracker.why)
	}
	if l.Machine, err = newMachine(s.facts, mem, log); err != nil {
		tracker.Close()
		return nil, err
	}
	l.Machine.tracker = tracker
	if err := l.Machine.loadState(s); err != nil {
		l.Machine.Close()
		return nil, err
	}
	if !count {
		return l, nil
	}
	// As late as can be: a prefetch may go on after the open returned.
	begin := time.Now()
	if l.Prefetched, err = resident(mem.file, mem.size); err != nil {
		l.note(log, "prefetched pages are not known: "+err.Error())
	}
	l.Counting = time.Since(begin)
	return l, nil
}

func (l *Loaded) note(log *slog.Logger, s string) {
	l.Notes = append(l.Notes, s)
	log.Warn(s)
}

// HostError says that this host cannot run the machine.
type HostError struct{ What string }

func (e *HostError) Error() string { return "this host cannot run the machine: " + e.What }

// checkHost compares the CPU vendor: guests choose code by it, and KVM emulates by it.
func checkHost(saved []kvm.CPUIDEntry) error {
	sys, err := kvm.Open()
	if err != nil {
		return err
	}
	defer sys.Close()
	host, err := sys.SupportedCPUID()
	if err != nil {
		return err
	}
	if a, b := vendor(saved), vendor(host); a != b {
		return &HostError{fmt.Sprintf("it was saved on a CPU of %q, this one is of %q", a, b)}
	}
	return nil
}

// vendor is the name in CPUID leaf 0.
func vendor(list []kvm.CPUIDEntry) string {
	for _, l := range list {
		if l.Function == 0 {
			var b []byte
			for _, r := range []uint32{l.EBX, l.EDX, l.ECX} {
				b = append(b, byte(r), byte(r>>8), byte(r>>16), byte(r>>24))
			}
			return string(b)
		}
	}
	return ""
}
