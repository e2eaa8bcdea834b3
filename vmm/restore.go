package vmm

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// Loaded is a machine made from a checkpoint, paused before its first instruction.
type Loaded struct {
	*Machine
	Dir        string
	Opened     time.Time     // when the open of the memory file returned
	Prefetched *wss.Bitmap   // pages in the page cache now; nil if the kernel does not tell
	Counting   time.Duration // what it took to find that out
	Tables     uint64        // page tables of the guest, read before it started
	Walking    time.Duration // what that took
	Exact      bool          // the tracker counts touched pages exactly
	Notes      []string      // what this host could not do
}

// Load makes a machine from a checkpoint directory, on disk or on a mount.
//
// The order matters for the time that the user waits. The state is small and comes first, so that a
// machine that cannot be restored costs no prefetch. Opening the memory file then is the request to
// prefetch. What is left afterwards are system calls.
func Load(dir string, log *slog.Logger) (*Loaded, error) {
	return load(dir, log, loadOptions{count: true, tables: true})
}

// loadOptions are the choices of a restore.
type loadOptions struct {
	count bool      // find out what was prefetched
	clock ClockMode // "": ClockResume
	force bool      // a [*HostError] becomes a note
	externals

	tables bool // read the guest's page tables first
	// readAround: the kernel brings up to 128 KiB with a page that is fetched, as it does for any
	// program that maps a file. It is for comparisons with such programs.
	readAround bool
}

func load(dir string, log *slog.Logger, o loadOptions) (*Loaded, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	sections, err := readStateFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	_, own, err := splitChanged(sections)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	s, err := decodeSaved(own)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	l := &Loaded{}
	forgive := l.forgiver(log, o.force)
	if err := forgive(checkHost(s.vcpus)); err != nil {
		return nil, err
	}
	mem, err := openMemory(dir, sections, imageSize(s.facts.Regions))
	if err != nil {
		return nil, err
	}
	l.Dir, l.Opened = dir, time.Now()
	if o.readAround {
		if err := mem.mapping.advise(unix.MADV_NORMAL); err != nil {
			return nil, errors.Join(fmt.Errorf("madvise: %w", err), mem.Close())
		}
	}
	if l.Machine, err = newMachine(s.facts, mem, o.externals, log); err != nil {
		return nil, err
	}
	var why string
	if l.Exact, why = mem.exact(); !l.Exact {
		l.note(log, "touched pages are counted with their neighbours: "+why)
	}
	if err := l.Machine.loadState(s, o.clock, forgive); err != nil {
		l.Machine.Close()
		return nil, err
	}
	if o.count {
		// As late as can be: a prefetch may go on after the open returned.
		begin := time.Now()
		if l.Prefetched, err = mem.resident(); err != nil {
			l.note(log, "prefetched pages are not known: "+err.Error())
		}
		l.Counting = time.Since(begin)
	}
	if o.tables {
		if err := l.readTables(s, log); err != nil {
			l.Machine.Close()
			return nil, err
		}
	}
	return l, nil
}

// openMemory maps the memory of a checkpoint. On a mount of thaw the open is the request to
// restore: it returns once the working set is in the page cache.
func openMemory(dir string, sections []section, size uint64) (*memory, error) {
	img, err := openImage(dir, sections)
	if err != nil {
		return nil, err
	}
	if img.size != size {
		return nil, errors.Join(fmt.Errorf("%s: %d bytes, the state describes %d bytes of memory",
			filepath.Join(dir, memoryFile), img.size, size), img.Close())
	}
	return mapImage(img)
}

func (l *Loaded) note(log *slog.Logger, s string) {
	l.Notes = append(l.Notes, s)
	log.Warn(s)
}
