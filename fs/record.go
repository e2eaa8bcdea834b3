package fs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/thawfs/thaw/wss"
)

// RecordOptions say what Record accepts as a working set.
type RecordOptions struct {
	// Force records what was read, even if it seems that no machine read it.
	Force bool
}

// A RecordError is a record that cannot be the working set of a machine: something copied the file
// or looked at it. It is ErrNotMachine.
type RecordError struct {
	Name string
	// Why says what was read, and by whom.
	Why string
	// Readers are the threads that opened the image, the first 16 of them.
	Readers []Reader
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("record %s: %v: %s", e.Name, ErrNotMachine, e.Why)
}

// Is makes it an ErrNotMachine.
func (e *RecordError) Is(target error) bool { return target == ErrNotMachine }

// Record returns as a working set what machines read since the image was last cold, up to
// Options.RecordWindow after its first open. Reads of processes that copied it are left out. ErrNotCold if
// pages came into the page cache in that time without being read, ErrNothing if nothing was read, a
// RecordError if no machine read it, or if a copy of the file that a machine reads hides what it needs.
func (s *Server) Record(_ context.Context, name string, o RecordOptions) (*wss.Set, error) {
	e := s.tree.entry(name)
	if e == nil {
		return nil, fmt.Errorf("record %s: %w", name, ErrNotFound)
	}
	ep, now := e.epoch.Load(), time.Now()
	if err := ep.recorded(now); err != nil {
		return nil, fmt.Errorf("record %s: %w", name, err)
	}
	all := ep.procs.all()
	if o.Force {
		return ep.set(all, now), nil
	}
	machines, copies := split(all, s.mapping(all))
	set, why := ep.judge(machines, copies, e.copied(), now)
	if why != "" {
		return nil, &RecordError{Name: name, Why: why, Readers: ep.readers.names()}
	}
	return set, nil
}

// mapping says which processes map files of this mount.
func (s *Server) mapping(procs []*readProc) map[uint32]bool {
	var pids []uint32
	for _, p := range procs {
		pids = append(pids, p.PID)
	}
	return mapping(MountPoint{s.lastPlace(), s.minor}, pids)
}

// split tells machines from copies. A machine maps the file, and if one does that still, all others are
// copies, but for threads of the kernel, in which KVM waits for pages. If none does (it has ended, or reads
// its memory by read(2), page by page) copies are those that have read in long stretches upwards.
func split(all []*readProc, maps map[uint32]bool) (machines, copies []*readProc) {
	mapped := slices.ContainsFunc(all, func(p *readProc) bool { return maps[p.PID] })
	for _, p := range all {
		if maps[p.PID] || (p.PID == 0 || !mapped) && !p.sequential() {
			machines = append(machines, p)
		} else {
			copies = append(copies, p)
		}
	}
	return machines, copies
}

// judge makes a working set of what machines have read, or says why there is none. A copy of all of the
// image reads at least so many pages.
func (p *epoch) judge(machines, copies []*readProc, image uint64, now time.Time) (set *wss.Set, why string) {
	if len(machines) == 0 {
		return nil, copied(copies, image)
	}
	set = p.set(machines, now)
	start := p.base.Add(time.Duration(p.started.Load()))
	if why := p.readers.doubt(start, set); why != "" && len(copies) == 0 {
		return nil, why
	}
	for i, c := range copies {
		for _, m := range machines {
			if c.node == m.node && c.trace.Pages() > max(fewPages, set.Pages()/100) {
				return nil, fmt.Sprintf("%s read %d pages of the file that %s reads, so that it did not need "+
					"to ask for them", c, c.trace.Pages(), m)
			}
		}
		if i < shownUsers {
			set.Way += fmt.Sprintf("; without %d pages that %s read", c.trace.Pages(), c)
		}
	}
	return set, ""
}

// copied says what copies have read of an image, of which a copy reads so many pages.
func copied(copies []*readProc, image uint64) string {
	var who []string
	var most uint64
	for _, c := range copies {
		who = append(who, c.String())
		most = max(most, c.trace.Pages())
	}
	if most >= image-image/20 {
		return fmt.Sprintf("%s read it from end to end, as a copy does", strings.Join(who, ", "))
	}
	return fmt.Sprintf("%s read %d pages in sequence", strings.Join(who, ", "), most)
}
