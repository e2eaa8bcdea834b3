package fs

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thawfs/thaw/wss"
)

// A Reader is a thread that opened a memory file.
type Reader struct {
	PID     uint32 `json:"pid"`
	Command string `json:"command"` // the kernel's name for it, at most 15 bytes; empty: not known
}

func (r Reader) String() string {
	if r.PID == 0 && r.Command != "" {
		return r.Command
	}
	if r.Command == "" {
		return fmt.Sprintf("process %d", r.PID)
	}
	return fmt.Sprintf("%s (%d)", r.Command, r.PID)
}

// readers are the threads that opened an image in an epoch.
type readers struct {
	mu     sync.Mutex
	list   []Reader
	opens  int       // by all processes, also those not listed. Guarded by mu, as all here
	closed time.Time // when the last file was closed; zero while one is open
}

// maxReaders bounds readers.list.
const maxReaders = 16

// reader describes a thread. It reads only files of /proc which the kernel answers from its own memory,
// so it never waits for a page of the mount.
func reader(tid uint32) Reader {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", tid))
	if err != nil {
		return Reader{PID: tid}
	}
	return Reader{PID: tid, Command: strings.TrimSpace(string(comm))}
}

// opened notes an open.
func (r *readers) opened(who Reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opens++
	r.closed = time.Time{}
	if len(r.list) < maxReaders && !slices.Contains(r.list, who) {
		r.list = append(r.list, who)
	}
}

// released notes that no file is open any more.
func (r *readers) released(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = now
}

const (
	// fewPages is what every machine reads, if it runs for long enough.
	fewPages = 16
	// briefly is less time than a machine runs after a restore.
	briefly = time.Second
)

// doubt says why the reads since start cannot be those of a machine; "" if they can. set is
// what was read.
func (r *readers) doubt(start time.Time, set *wss.Set) string {
	read := set.Pages()
	r.mu.Lock()
	defer r.mu.Unlock()
	who := fmt.Sprint(r.list)
	if len(r.list) == 1 {
		who = r.list[0].String()
	}
	switch held := r.closed.Sub(start); {
	case r.closed.IsZero() || r.opens > 1 || held >= briefly:
		return ""
	case read < fewPages:
		return fmt.Sprintf("%s had it open for %v and read %d pages", who,
			held.Round(time.Millisecond), read)
	case together(set):
		return fmt.Sprintf("%s had it open for %v and read %d pages in sequence", who,
			held.Round(time.Millisecond), read)
	}
	return ""
}

// together says that the pages of a set lie together in the image, as those that one read(2) after
// the other gets. The few READs of a short look say less: each may overtake another.
func together(set *wss.Set) bool {
	pages := set.Pages()
	first, end := ^uint64(0), uint64(0)
	for _, r := range set.Runs {
		first, end = min(first, r.GFN), max(end, r.GFN+r.Count)
	}
	return end-first <= pages+pages/20
}

// names are the threads that opened it.
func (r *readers) names() []Reader {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}
