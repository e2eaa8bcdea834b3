package disk

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// Spec describes a device. The zero Spec is the host's own disk, as it is.
type Spec struct {
	Name      string        `json:"name"`
	Seek      time.Duration `json:"seek_ns"`    // before a request that does not follow the last one
	Latency   time.Duration `json:"latency_ns"` // before the first byte of any request
	Bandwidth int64         `json:"bandwidth"`  // bytes a second, of all requests together
	Parallel  int           `json:"parallel"`   // requests served at once
	ReadOn    time.Duration `json:"read_on_ns"` // how long it reads on with nothing else to do
}

// Native is the name of the zero Spec.
const Native = "native"

// specs are the devices that have a name.
var specs = [...]Spec{
	{Name: "hdd", Seek: 10 * time.Millisecond, Bandwidth: 100e6, Parallel: 1,
		ReadOn: 5 * time.Millisecond},
	{Name: "nfs", Latency: 500 * time.Microsecond, Bandwidth: 110e6, Parallel: 64},
	{Name: "s3", Latency: 20 * time.Millisecond, Bandwidth: 100e6, Parallel: 16},
}

// ParseSpec returns the device of a name: native, hdd, nfs or s3.
func ParseSpec(name string) (Spec, error) {
	if name == Native {
		return Spec{}, nil
	}
	names := []string{Native}
	for _, s := range specs {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Spec{}, fmt.Errorf("unknown disk %q: want %s", name, strings.Join(names, ", "))
}

// Native says whether the Spec is the host's own disk.
func (s Spec) Native() bool { return s == Spec{} }

func (s Spec) String() string {
	if s.Native() {
		return Native
	}
	return s.Name
}

// transfer is how long n bytes have the link: rounded up, so that the bandwidth is never exceeded.
func (s Spec) transfer(n int64) time.Duration {
	hi, lo := bits.Mul64(uint64(n), uint64(time.Second))
	bw := uint64(s.Bandwidth)
	lo, carry := bits.Add64(lo, bw-1, 0)
	d, _ := bits.Div64(hi+carry, lo, bw)
	return time.Duration(d)
}

// Request is Size bytes from position Pos of the device on.
type Request struct{ Pos, Size int64 }

// Service is how a request is served: when the device begins it, and when its last byte is
// there.
type Service struct {
	Start, End time.Duration
	Seek       bool // the head had to move
}

// Model is the state of a device between requests. It is a pure function of the requests so far.
type Model struct {
	spec  Spec
	slots []time.Duration // when each of the Parallel servers is free
	link  time.Duration   // when the link is free
	head  int64           // the position behind the last request; -1: nowhere yet
}

// NewModel returns a device that has done nothing yet. The spec must have a bandwidth.
func NewModel(s Spec) *Model {
	if s.Bandwidth <= 0 {
		panic("disk: a device without bandwidth: " + s.String())
	}
	return &Model{spec: s, slots: make([]time.Duration, max(s.Parallel, 1)), head: -1}
}

// Schedule takes a request that arrives now, on any clock that all requests are on. Requests come
// in the order of their arrival: now never decreases.
func (m *Model) Schedule(now time.Duration, r Request) Service {
	slot := slices.Index(m.slots, slices.Min(m.slots))
	v := Service{Start: max(now, m.slots[slot])}
	ready := v.Start + m.spec.Latency
	if r.Pos == m.head {
		ready -= m.spec.ReadOn // as much may have been read already, since the link was free
	} else if m.spec.Seek > 0 {
		v.Seek = true
		ready += m.spec.Seek
	}
	v.End = max(max(ready, m.link)+m.spec.transfer(r.Size), now)
	m.slots[slot], m.link, m.head = v.End, v.End, r.Pos+r.Size
	return v
}
