package device

import (
	"math/rand/v2"
	"testing"
)

// Where a test driver has its queue and its buffers.
const (
	drvDesc   = 0x1000
	drvAvail  = 0x3000
	drvUsed   = 0x4000
	drvTables = 0x10000  // one indirect table for each head
	drvBufs   = 0x100000 // one for each request on its way
	drvBuf    = 0x4000
	drvMemory = drvBufs + 32*drvBuf
)

// buf is one buffer of a request.
type buf struct {
	addr  uint64
	size  uint32
	write bool // by the device
}

// driver is the guest's side of a virtio device, by the specification: a small version of Linux's driver.
type driver struct {
	t        testing.TB
	dev      Handler
	mem      *fakeMemory
	line     *fakeLine
	size     uint16
	features uint64
	rand     *rand.Rand

	free   []uint16 // descriptors
	avail  uint16   // index, all of it published
	used   uint16   // chains got back
	chains map[uint16][]uint16
	kicks  int
}

func (d *driver) reg(off uint64) uint32 {
	d.t.Helper()
	var p [4]byte
	check(d.t, d.dev.Read(off, p[:]))
	return le.Uint32(p[:])
}

func (d *driver) set(off uint64, v uint32) {
	d.t.Helper()
	check(d.t, d.dev.Write(off, le.AppendUint32(nil, v)))
}

// newDriver resets, initializes and starts a device, with one queue of a size.
func newDriver(t testing.TB, dev Handler, mem *fakeMemory, line *fakeLine, size uint16,
	refuse uint64) *driver {
	t.Helper()
	d := prepareDriver(t, dev, mem, line, size, refuse)
	d.start()
	return d
}

func (d *driver) start() {
	d.t.Helper()
	d.set(regStatus, statusAcknowledge|statusDriver|statusFeaturesOK|statusDriverOK)
	if s := d.reg(regStatus); s != 0xf || d.reg(regQueueReady) != 1 {
		d.t.Fatalf("status %#x after initialization", s)
	}
}

func prepareDriver(t testing.TB, dev Handler, mem *fakeMemory, line *fakeLine, size uint16,
	refuse uint64) *driver {
	t.Helper()
	d := &driver{t: t, dev: dev, mem: mem, line: line, size: size, rand: rand.New(rand.NewPCG(1, 2)),
		chains: map[uint16][]uint16{}}
	if d.reg(regMagic) != virtioMagic || d.reg(regVersion) != 2 {
		t.Fatal("not a virtio device")
	}
	d.set(regStatus, 0)
	d.set(regStatus, statusAcknowledge)
	d.set(regStatus, statusAcknowledge|statusDriver)
	for sel := range uint32(2) {
		d.set(regDeviceFeaturesSel, sel)
		d.features |= uint64(d.reg(regDeviceFeatures)) << (32 * sel)
	}
	d.features &^= refuse
	for sel := range uint32(2) {
		d.set(regDriverFeaturesSel, sel)
		d.set(regDriverFeatures, uint32(d.features>>(32*sel)))
	}
	d.set(regStatus, statusAcknowledge|statusDriver|statusFeaturesOK)
	if d.reg(regStatus)&statusFeaturesOK == 0 {
		t.Fatal("the device does not accept its own features")
	}
	d.set(regQueueSel, 0)
	if d.reg(regQueueReady) != 0 || d.reg(regQueueNumMax) < uint32(size) {
		t.Fatal("the queue is too small or in use")
	}
	mem.put(drvAvail, make([]byte, 8+2*int(size)))
	mem.put(drvUsed, make([]byte, 8+8*int(size)))
	d.set(regQueueNum, uint32(size))
	d.set(regQueueDescLow, drvDesc)
	d.set(regQueueDescHigh, 0)
	d.set(regQueueAvailLow, drvAvail)
	d.set(regQueueAvailHigh, 0)
	d.set(regQueueUsedLow, drvUsed)
	d.set(regQueueUsedHigh, 0)
	d.set(regQueueReady, 1)
	for i := range size {
		d.free = append(d.free, i)
	}
	return d
}

func (d *driver) putDesc(table uint64, i uint16, b buf, flags, next uint16) {
	if b.write {
		flags |= descWrite
	}
	p := le.AppendUint64(nil, b.addr)
	p = le.AppendUint32(p, b.size)
	p = le.AppendUint16(p, flags)
	d.mem.put(table+uint64(i)*descSize, le.AppendUint16(p, next))
}

// add makes a request available, without telling. It says whether there was room.
func (d *driver) add(bufs []buf) (head uint16, ok bool) {
	indirect := d.features&featureIndirect != 0 && d.rand.IntN(2) == 0
	need := len(bufs)
	if indirect {
		need = 1
	}
	if len(d.free) < need || len(bufs) > int(d.size) {
		return 0, false
	}
	// In any order, as after a while.
	d.rand.Shuffle(len(d.free), func(i, j int) { d.free[i], d.free[j] = d.free[j], d.free[i] })
	take := append([]uint16(nil), d.free[:need]...)
	d.free = d.free[need:]
	head = take[0]
	if indirect {
		table := drvTables + uint64(head)*queueMax*descSize/8
		for i, b := range bufs {
			if i < len(bufs)-1 {
				d.putDesc(table, uint16(i), b, descNext, uint16(i+1))
			} else {
				d.putDesc(table, uint16(i), b, 0, 0)
			}
		}
		d.putDesc(drvDesc, head, buf{addr: table, size: uint32(len(bufs)) * descSize}, descIndirect, 0)
	} else {
		for i, b := range bufs {
			if i < len(bufs)-1 {
				d.putDesc(drvDesc, take[i], b, descNext, take[i+1])
			} else {
				d.putDesc(drvDesc, take[i], b, 0, 0xffff)
			}
		}
	}
	d.chains[head] = take
	d.mem.put16(drvAvail+4+2*uint64(d.avail%d.size), head)
	d.avail++
	d.mem.put16(drvAvail+2, d.avail)
	return head, true
}

// kick notifies the device of the last n requests, unless it has disabled notifications.
func (d *driver) kick(n uint16) {
	if d.features&featureEventIdx != 0 {
		event := d.mem.get16(drvUsed + 4 + 8*uint64(d.size))
		if d.avail-event-1 >= n {
			return
		}
	}
	d.kicks++
	d.set(regQueueNotify, 0)
}

// done is a request that came back.
type done struct {
	head    uint16
	written uint32
}

// collect takes back what there is, after an interrupt or in a poll.
func (d *driver) collect() (all []done) {
	d.t.Helper()
	for {
		for d.used != d.mem.get16(drvUsed+2) {
			slot := d.mem.get(drvUsed+4+8*uint64(d.used%d.size), 8)
			id := le.Uint32(slot)
			take, ok := d.chains[uint16(id)]
			if id > 0xffff || !ok {
				d.t.Fatalf("the device gives back %d, which it does not have", id)
			}
			delete(d.chains, uint16(id))
			d.free = append(d.free, take...)
			all = append(all, done{uint16(id), le.Uint32(slot[4:])})
			d.used++
		}
		// The next one is to interrupt; and look again, for one may have come before that.
		d.mem.put16(drvAvail+4+2*uint64(d.size), d.used)
		if d.used == d.mem.get16(drvUsed+2) {
			return all
		}
	}
}

// await returns when all requests are complete, using only interrupts.
func (d *driver) await() (all []done) {
	d.t.Helper()
	all = d.collect()
	for len(d.chains) > 0 {
		d.line.await(d.t)
		status := d.reg(regInterruptStatus)
		d.set(regInterruptAck, status)
		if status&interruptConfig != 0 {
			d.t.Fatalf("the device needs a reset (status %#x)", d.reg(regStatus))
		}
		all = append(all, d.collect()...)
	}
	return all
}

// cut cuts a run of memory into buffers at random.
func (d *driver) cut(addr uint64, size uint32, write bool, most int) (bufs []buf) {
	for size > 0 {
		n := size
		if most > 1 && d.rand.IntN(3) > 0 {
			n = 1 + d.rand.Uint32N(size)
		}
		bufs = append(bufs, buf{addr, n, write})
		addr, size, most = addr+uint64(n), size-n, most-1
	}
	return bufs
}
