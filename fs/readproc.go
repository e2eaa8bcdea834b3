package fs

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/wss"
)

// A readProc is a process, and what it has read of one memory file in an epoch. The kernel says with each
// READ which thread asks for it, also for a page fault and for what it reads ahead because of one.
type readProc struct {
	Reader
	node  uint64        // of the memory file
	trace *wss.Recorder // first touches
	// requests are READs, and jumps those of them that began elsewhere than the one before ended.
	requests, jumps atomic.Uint64
	// next is the page after the last READ.
	next atomic.Uint64
	// refused are pages whose reading ahead was refused, and wanted those of them that were asked for alone
	// then.
	refused, wanted atomic.Uint64
}

const (
	// nearPages is how far the READs of one sequential reader overtake one another.
	nearPages = 64
	// meanStretch is above what a machine reads from one jump to the next, on average, in pages.
	meanStretch = 64
	// meanRead is above what a machine reads at once, on average, in pages.
	meanRead = 2
	// triedPages is how many pages are refused before it is known what for.
	triedPages = 64
)

// read notes a READ that is answered.
func (p *readProc) read(first, count uint64, at time.Duration) {
	p.requests.Add(1)
	if next := p.next.Swap(first + count); first+nearPages < next || first > next+nearPages {
		p.jumps.Add(1)
	}
	p.trace.AddRun(first, count, at, wss.NoVCPU)
}

// sequential says that it has read upwards in long stretches, several pages at once, as a copy does. A
// machine may go through its memory, too, but page by page.
func (p *readProc) sequential() bool {
	pages := p.trace.Pages()
	return pages >= fewPages && pages >= meanStretch*p.jumps.Load() && pages >= meanRead*p.requests.Load()
}

// bulk says that it wants what is read ahead for it: nearly all pages that were refused were asked for.
func (p *readProc) bulk() bool {
	refused := p.refused.Load()
	return refused >= triedPages && p.wanted.Load()*4 >= refused*3
}

// readProcs are the processes that read an image in an epoch, each of its files for itself.
type readProcs struct {
	make    func() *wss.Recorder
	threads [threadSlots]atomic.Pointer[readThread]

	mu   sync.Mutex
	list []*readProc // guarded by mu
}

// A readThread says which process a thread is of.
type readThread struct {
	tid  uint32
	node uint64
	proc *readProc
}

const (
	// threadSlots is a power of two. A machine has a thread for each vCPU, and a few others.
	threadSlots = 256
	// slotTries is how many slots a thread may be in.
	slotTries = 8
	// maxReadProcs bounds readProcs.list. The last one stands for all that are more.
	maxReadProcs = 32
)

// of finds the process of a thread that reads a file. Only the first READ of a thread costs more than a
// few comparisons.
func (r *readProcs) of(tid uint32, node uint64) *readProc {
	slot := (tid*0x9e3779b1 ^ uint32(node)) % threadSlots
	for i := range uint32(slotTries) {
		t := r.threads[(slot+i)%threadSlots].Load()
		if t == nil {
			break
		}
		if t.tid == tid && t.node == node {
			return t.proc
		}
	}
	return r.add(tid, node, slot)
}

// add notes a thread.
func (r *readProcs) add(tid uint32, node uint64, slot uint32) *readProc {
	who := processOf(tid)
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.list, func(p *readProc) bool { return p.PID == who.PID && p.node == node })
	if i < 0 && len(r.list) < maxReadProcs {
		r.list = append(r.list, &readProc{Reader: who, node: node, trace: r.make()})
		i = len(r.list) - 1
	} else if i < 0 {
		i = len(r.list) - 1
		r.list[i].node = 0
		r.list[i].Reader = Reader{Command: "several others"}
	}
	t := &readThread{tid, node, r.list[i]}
	for i := range uint32(slotTries) {
		if r.threads[(slot+i)%threadSlots].CompareAndSwap(nil, t) {
			return t.proc
		}
	}
	r.threads[slot].Store(t)
	return t.proc
}

// processOf describes the process of a thread, by a file of /proc that takes no lock which a thread that
// waits for a page could hold. Threads of the kernel, as those in which KVM waits for pages, are one
// process, with the number 0. So are threads that this server cannot see.
func processOf(tid uint32) Reader {
	if tid == 0 {
		return Reader{}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return Reader{PID: tid} // it has ended
	}
	r := Reader{}
	memory := false
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch value = strings.TrimSpace(value); name {
		case "Name":
			r.Command = value
		case "Tgid":
			n, _ := strconv.ParseUint(value, 10, 32) // the kernel wrote it
			r.PID = uint32(n)
		case "VmSize":
			memory = true
		}
	}
	if !memory {
		return Reader{Command: "the kernel"}
	}
	return r
}

// all lists the processes.
func (r *readProcs) all() []*readProc {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// merged is the record of several processes: the first touches of them all, in their order.
func (r *readProcs) merged(procs []*readProc, window time.Duration, now time.Time) *wss.Set {
	if len(procs) == 1 {
		return procs[0].trace.Set(window, now)
	}
	var runs []wss.Run
	for _, p := range procs {
		last := time.Duration(0)
		for _, run := range p.trace.Set(window, now).Runs {
			// What one process reads stays in its order, also where its own time, which is measured while
			// others read, seems to go back.
			last = max(last, run.At)
			run.At = last
			runs = append(runs, run)
		}
	}
	slices.SortStableFunc(runs, func(a, b wss.Run) int { return cmp.Compare(a.At, b.At) })
	all := r.make()
	for _, run := range runs {
		all.AddRun(run.GFN, run.Count, run.At, run.VCPU)
	}
	return all.Set(window, now)
}
