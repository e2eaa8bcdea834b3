package disk

import (
	"io"
	"sync"
	"time"
)

// Disk simulates a device in real time. Its methods may be called by many goroutines at once.
type Disk struct {
	spec  Spec
	clock clock

	mu    sync.Mutex
	model *Model
	stats Stats
}

// Stats is what a Disk did.
type Stats struct {
	Requests int64         `json:"requests"`
	Seeks    int64         `json:"seeks"`
	Bytes    int64         `json:"bytes"`
	Waited   time.Duration `json:"waited_ns"` // sum of what the requests took, queueing included
	// Late are the requests that the host answered after the simulated device would have, by more
	// than a millisecond, and LateBy is by how much, in sum.
	Late   int64         `json:"late"`
	LateBy time.Duration `json:"late_by_ns"`
}

// late is a delay that the host causes, not the wake-up of a sleeper.
const late = time.Millisecond

// New returns an idle device. The Spec must not be the native one.
func New(s Spec) *Disk { return newDisk(s, new(systemClock)) }

func newDisk(s Spec, c clock) *Disk { return &Disk{spec: s, clock: c, model: NewModel(s)} }

// Spec says which device it is.
func (d *Disk) Spec() Spec { return d.spec }

// Stats is what it did so far.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// ReadAt reads len(p) bytes at off of r, which lie at position pos of the device, and returns when
// the device would have delivered them.
func (d *Disk) ReadAt(r io.ReaderAt, p []byte, off, pos int64) (n int, err error) {
	d.Serve(Request{Pos: pos, Size: int64(len(p))}, func() { n, err = r.ReadAt(p, off) })
	return n, err
}

// Serve simulates a request: it calls read, which gets the bytes from where they really are, and
// returns when the device would have delivered them.
func (d *Disk) Serve(r Request, read func()) {
	came, end := d.arrive(r)
	read()
	d.clock.Until(end)
	d.left(came, end)
}

// arrive takes a request and says when it came and when it will have been served.
func (d *Disk) arrive(r Request) (came, end time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	came = d.clock.Now()
	v := d.model.Schedule(came, r)
	d.stats.Requests++
	d.stats.Bytes += r.Size
	if v.Seek {
		d.stats.Seeks++
	}
	return came, v.End
}

// left notes that a request was answered.
func (d *Disk) left(came, end time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock.Now()
	d.stats.Waited += now - came
	if by := now - end; by > late {
		d.stats.Late++
		d.stats.LateBy += by
	}
}
