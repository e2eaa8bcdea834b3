package device

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"testing"
)

// testBlock is a running block device over a disk in memory, with its driver.
func testBlock(t testing.TB, size int) (*Block, *blockModel, *fakeStorage) {
	t.Helper()
	storage := newFakeStorage(size)
	mem, line := newFakeMemory(drvMemory), newFakeLine()
	b := NewBlock(testConfig(t, mem, line), storage.disk())
	check(t, b.Resume())
	return b, newBlockModel(newDriver(t, b, mem, line, 32, 0), size), storage
}

func TestRegisters(t *testing.T) {
	b, d, _ := testBlock(t, 4096)
	defer b.Close()
	for off, want := range map[uint64]uint32{
		regMagic: 0x74726976, regVersion: 2, regDeviceID: 2, regVendorID: virtioVendor,
		regQueueNumMax: queueMax, regQueueReady: 1, regInterruptStatus: 0, regStatus: 0xf,
		regGeneration: 0, 0xb0: noShm, 0xb4: noShm, 0xb8: noShm, 0xbc: noShm,
		regQueueNotify: 0, regQueueDescLow: 0, 0xc0: 0, 0xf0: 0,
	} {
		if got := d.reg(off); got != want {
			t.Errorf("register %#x: %#x, expected %#x", off, got, want)
		}
	}
	for _, size := range []int{1, 2, 8} {
		p := bytes.Repeat([]byte{0xee}, size)
		check(t, b.Read(regMagic, p))
		if !bytes.Equal(p, make([]byte, size)) {
			t.Errorf("%d bytes of a register: %x", size, p)
		}
		check(t, b.Write(regStatus, make([]byte, size)))
	}
	if d.reg(regStatus) != 0xf {
		t.Error("a write that is not of 32 bits has an effect")
	}
	d.set(regQueueSel, 1)
	if d.reg(regQueueNumMax) != 0 || d.reg(regQueueReady) != 0 {
		t.Error("there is a second queue")
	}
	for _, off := range []uint64{regQueueNum, regQueueReady, regQueueDescLow} {
		d.set(off, 1)
	}
	d.set(regQueueNotify, 1)
	d.set(regDeviceFeaturesSel, 2)
	if d.reg(regDeviceFeatures) != 0 {
		t.Error("there are more than 64 features")
	}
}

// The steps of initialization, and what a driver may not do in them.
func TestStatus(t *testing.T) {
	b, d, _ := testBlock(t, 4096)
	defer b.Close()
	accept := func(features uint64) {
		for sel := range uint32(2) {
			d.set(regDriverFeaturesSel, sel)
			d.set(regDriverFeatures, uint32(features>>(32*sel)))
		}
	}
	for _, c := range []struct {
		name     string
		status   []uint32
		features uint64
		want     uint32
	}{
		{"nothing", nil, featureVersion1, 0},
		{"all steps", []uint32{1, 3, 11, 15}, featureVersion1, 15},
		{"two at once", []uint32{3, 15}, featureVersion1, 15},
		{"a step back", []uint32{1, 3, 11, 3}, featureVersion1, 11},
		{"features before there is a driver", []uint32{9}, featureVersion1, 1},
		{"ready before the features", []uint32{3, 7}, featureVersion1, 3},
		{"legacy driver", []uint32{3, 11}, blockFeatureFlush, 3},
		{"features not offered", []uint32{3, 11, 15}, featureVersion1 | blockFeatureReadOnly, 3},
		{"more of them", []uint32{3, 11}, featureVersion1 | 1<<63, 3},
		{"unknown bits", []uint32{3, 0x30 | 3}, 0, 3},
		{"the device's own bit", []uint32{3, 64 | 3}, 0, 3},
		{"given up", []uint32{3, 128 | 3, 11}, featureVersion1, 131},
	} {
		d.set(regStatus, 0)
		for _, s := range c.status {
			if s&statusFeaturesOK != 0 {
				accept(c.features)
			}
			d.set(regStatus, s)
		}
		if got := d.reg(regStatus); got != c.want {
			t.Errorf("%s: status %#x, expected %#x", c.name, got, c.want)
		}
	}
	// Features stay as they were accepted, and a queue as it was made ready.
	d.driver = newDriver(t, b, d.mem, d.line, 8, 0)
	accept(0)
	d.set(regQueueNum, 16)
	d.set(regQueueUsedLow, 0)
	s := b.State()
	if s.Transport.DriverFeatures != d.features || s.Queue[0].Size != 8 || s.Queue[0].Used != drvUsed {
		t.Errorf("%+v", s)
	}
	// Before the features are accepted there are no queues to set up.
	d.set(regStatus, 0)
	d.set(regStatus, 3)
	d.set(regQueueNum, 8)
	d.set(regQueueReady, 1)
	if s := b.State(); s.Queue[0] != (QueueState{}) || s.Transport.Status != 3 {
		t.Errorf("%+v", s)
	}
}

// A broken rule costs the driver the device until it resets it; then all is well again.
func TestNeedsReset(t *testing.T) {
	b, m, _ := testBlock(t, 4096)
	defer b.Close()
	for name, breakRule := range map[string]func(){
		"descriptor": func() {
			m.mem.put(drvDesc, desc{1 << 60, 16, 0, 0}.bytes())
			m.mem.put16(drvAvail+4, 0)
			m.mem.put16(drvAvail+2, 1)
		},
		"index": func() { m.mem.put16(drvAvail+2, 9) },
		"no header": func() {
			m.mem.put(drvDesc, desc{drvBufs, 15, descNext, 1}.bytes())
			m.mem.put(drvDesc+descSize, desc{drvBufs, 15, descWrite, 1}.bytes())
			m.mem.put16(drvAvail+4, 0)
			m.mem.put16(drvAvail+2, 1)
		},
		"no status": func() {
			m.mem.put(drvDesc, desc{drvBufs, 16, 0, 0}.bytes())
			m.mem.put16(drvAvail+4, 0)
			m.mem.put16(drvAvail+2, 1)
		},
	} {
		m.driver = newDriver(t, b, m.mem, m.line, 8, 0)
		breakRule()
		m.set(regQueueNotify, 0)
		m.line.await(t)
		if s := m.reg(regStatus); s != 0xf|statusNeedsReset {
			t.Errorf("%s: status %#x", name, s)
		}
		if s := m.reg(regInterruptStatus); s != interruptConfig {
			t.Errorf("%s: interrupt status %#x", name, s)
		}
		m.set(regInterruptAck, interruptConfig)
		if level, _ := m.line.get(); level {
			t.Errorf("%s: the line stays asserted", name)
		}
		// It survives a checkpoint, and does nothing until it is reset.
		check(t, b.Drain())
		s := b.State()
		if err := b.Restore(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		check(t, b.Resume())
		m.set(regQueueNotify, 0)
		m.set(regStatus, 0xf) // the driver may write back all that it has read
		check(t, b.Drain())
		if again := b.State(); again != s {
			t.Errorf("%s: %+v, then %+v", name, s, again)
		}
		check(t, b.Resume())
		m.driver = newDriver(t, b, m.mem, m.line, 8, 0)
		m.request(blockIn, 0, nil, 512)
		m.kick(1)
		m.verify(m.await())
	}
	// A queue that cannot be: the driver has not started, so there is no interrupt to wait for.
	m.set(regStatus, 0)
	m.set(regStatus, 3)
	m.set(regDriverFeaturesSel, 1)
	m.set(regDriverFeatures, 1)
	m.set(regStatus, 11)
	m.set(regQueueNum, 7)
	m.set(regQueueReady, 1)
	s, isr := m.reg(regStatus), m.reg(regInterruptStatus)
	if s != 11|statusNeedsReset || isr != 0 {
		t.Errorf("status %#x, interrupt status %#x", s, isr)
	}
}

// awaitStop returns when somebody waits for the request in work; it must not be done already.
func (b *Block) awaitStop(t *testing.T, done <-chan struct{}) {
	t.Helper()
	for {
		b.mu.Lock()
		waiting := b.stops > 0
		b.mu.Unlock()
		select {
		case <-done:
			t.Fatal("it did not wait for the request")
		default:
		}
		if waiting {
			return
		}
		runtime.Gosched()
	}
}

// When a reset returns, the device no longer uses the driver's memory.
func TestResetWaitsForTheRequest(t *testing.T) {
	b, m, storage := testBlock(t, 4096)
	defer b.Close()
	storage.hold = make(chan chan struct{})
	m.request(blockIn, 0, nil, 512)
	m.kick(1)
	release := receive(t, storage.hold, "the request")
	reset := make(chan struct{})
	go func() {
		defer close(reset)
		check(t, b.Write(regStatus, make([]byte, 4)))
		m.mem.mu.Lock()
		defer m.mem.mu.Unlock()
		m.mem.onWrite = func([]byte, int64) { t.Error("written after the reset") }
	}()
	b.awaitStop(t, reset)
	// Registers can be read while both wait.
	if m.reg(regInterruptStatus) != 0 {
		t.Error("the request is done already")
	}
	close(release)
	receive(t, reset, "the reset")
	if m.reg(regStatus) != 0 || m.reg(regQueueReady) != 0 || m.reg(regInterruptStatus) != 0 {
		t.Error("not reset")
	}
	if level, _ := m.line.get(); level {
		t.Error("the line stays asserted")
	}
	check(t, b.Drain())
}

// Requests that were made available before the device was started, or before its queue was ready,
// are done without a kick.
func TestEarlyRequests(t *testing.T) {
	b, m, _ := testBlock(t, 4096)
	defer b.Close()
	m.driver = prepareDriver(t, b, m.mem, m.line, 8, 0)
	m.request(blockIn, 0, nil, 512)
	m.set(regQueueNotify, 0) // too early
	m.start()
	m.verify(m.await())
	m.set(regInterruptAck, interruptUsed)
	// And then the device rests.
	b.idle()
	m.mem.arm(0)
	b.mu.Lock()
	if b.busy || b.kicked() != nil {
		t.Error("the device looks at its queue without end")
	}
	b.mu.Unlock()
}

// A queue can be taken away from the device. No further request is taken from it.
func TestQueueNotReady(t *testing.T) {
	b, m, storage := testBlock(t, 4096)
	defer b.Close()
	storage.hold = make(chan chan struct{})
	m.request(blockIn, 0, nil, 512)
	m.request(blockIn, 1, nil, 512)
	m.kick(2)
	release := receive(t, storage.hold, "the first request")
	off := make(chan struct{})
	go func() {
		defer close(off)
		check(t, b.Write(regQueueReady, make([]byte, 4)))
	}()
	b.awaitStop(t, off)
	close(release)
	receive(t, off, "the end of the queue")
	if got := b.State().Queue[0]; got.Ready != 0 || got.LastAvail != 0 || got.Desc != drvDesc {
		t.Errorf("%+v", got)
	}
	if m.mem.get16(drvUsed+2) != 1 {
		t.Error("the second request was done, or the first was not")
	}
}

// Drain waits for the request in work, takes no other, and leaves those in the ring.
func TestDrain(t *testing.T) {
	b, m, storage := testBlock(t, 4096)
	defer b.Close()
	storage.hold = make(chan chan struct{})
	for i := range uint64(2) {
		m.request(blockIn, i, nil, 512)
	}
	m.kick(2)
	release := receive(t, storage.hold, "the first request")
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		check(t, b.Drain())
	}()
	b.awaitStop(t, drained)
	close(release)
	receive(t, drained, "drain")
	s := b.State()
	if q := s.Queue[0]; q.LastAvail != 1 || q.LastUsed != 1 {
		t.Errorf("%+v", q)
	}
	m.set(regQueueNotify, 0) // changes nothing now
	if again := b.State(); again != s {
		t.Errorf("%+v, then %+v", s, again)
	}
	go func() { close(<-storage.hold) }()
	check(t, b.Resume())
	m.verify(m.await())
	check(t, b.Drain())
	check(t, b.Drain())
	check(t, b.Close())
	check(t, b.Close())
	if !storage.closed {
		t.Error("the disk is not closed")
	}
}

// A guest that keeps the queue full does not keep others from stopping the device.
func TestStopIsNotStarved(t *testing.T) {
	b, m, _ := testBlock(t, 4096)
	defer b.Close()
	// The ring is full again whenever the device looks.
	m.mem.put(drvBufs, blockHeaderBytes(blockFlush, 0))
	m.mem.put(drvDesc, desc{drvBufs, 16, descNext, 1}.bytes())
	m.mem.put(drvDesc+descSize, desc{drvBufs + 100, 1, descWrite, 0}.bytes())
	m.mem.mu.Lock()
	served := make(chan struct{})
	var once sync.Once
	m.mem.onWrite = func(p []byte, addr int64) {
		if addr == drvUsed {
			le.PutUint16(m.mem.bytes[drvAvail+2:], le.Uint16(p[2:])+8)
			once.Do(func() { close(served) })
		}
	}
	le.PutUint16(m.mem.bytes[drvAvail+2:], 8)
	m.mem.mu.Unlock()
	m.set(regQueueNotify, 0)
	receive(t, served, "the first request")
	for range 20 {
		check(t, b.Drain())
		check(t, b.Resume())
	}
	for busy := false; !busy; runtime.Gosched() {
		b.mu.Lock()
		busy = b.busy
		b.mu.Unlock()
	}
	m.set(regStatus, 0)
	if m.reg(regStatus) != 0 {
		t.Error("not reset")
	}
}

// Each access to guest memory fails in turn. The machine is told, once, of just that; nothing
// hangs, and the device does nothing more.
func TestMemoryFails(t *testing.T) {
	for n := 1; ; n++ {
		mem, line := newFakeMemory(drvMemory), newFakeLine()
		failed := make(chan error, 9)
		config := testConfig(t, mem, line)
		config.Fail = func(err error) { failed <- err }
		b := NewBlock(config, newFakeStorage(4096).disk())
		m := newBlockModel(newDriver(t, b, mem, line, 32, featureIndirect), 4096)
		if !m.request(blockOut, 0, make([]byte, 1024), 1024) || !m.request(blockIn, 0, nil, 512) {
			t.Fatal("no room")
		}
		mem.arm(n)
		check(t, b.Resume())
		if !m.ends(b, failed) {
			check(t, b.Close())
			if n <= 24 {
				t.Errorf("two requests need %d accesses", n-1)
			}
			return
		}
		if err := b.Drain(); !errors.Is(err, errInjected) {
			t.Errorf("access %d: drained: %v", n, err)
		}
		if err := b.Resume(); !errors.Is(err, errInjected) {
			t.Errorf("access %d: resumed: %v", n, err)
		}
		check(t, b.Close())
		if len(failed) != 0 {
			t.Errorf("access %d: the machine is told again", n)
		}
	}
}

// ends waits for the requests or for the end of the machine, and says whether it ended.
func (m *blockModel) ends(b *Block, failed chan error) bool {
	m.t.Helper()
	for len(m.chains) > 0 {
		m.line.mu.Lock()
		level, change := m.line.level, m.line.change
		m.line.mu.Unlock()
		if !level {
			select {
			case err := <-failed:
				if !errors.Is(err, errInjected) {
					m.t.Error(err)
				}
				return true
			case <-change:
			}
		}
		m.set(regInterruptAck, m.reg(regInterruptStatus))
		m.verify(m.collect())
	}
	// The device may still be looking for more.
	if b.Drain() == nil {
		return false
	}
	receive(m.t, failed, "the error")
	return true
}

// Each operation of the disk fails in turn: that request fails, the others do not.
func TestStorageFails(t *testing.T) {
	for n := 1; ; n++ {
		b, m, storage := testBlock(t, 4*blockBuffer)
		storage.arm(n)
		ops := []func() bool{
			func() bool { return m.request(blockOut, 1, make([]byte, 512), 512) },
			func() bool { return m.request(blockIn, 1, nil, 512) },
			func() bool { return m.request(blockFlush, 0, nil, 0) },
			func() bool { return m.request(blockDiscard, 0, zeroRange(0, 1, 0), 16) },
			func() bool { return m.request(blockWriteZeroes, 0, zeroRange(0, 1, 0), 16) },
		}
		bad := 0
		for i, op := range ops {
			op()
			m.kick(1)
			m.await()
			for head, r := range m.flying {
				if got := m.status(r); got == blockIOError {
					bad++
					if i != n-1 {
						t.Errorf("operation %d fails, request %d has an error", n, i)
					}
				}
				delete(m.flying, head)
			}
		}
		err := b.Drain() // syncs, and asks when that was
		check(t, b.Close())
		want := 0
		switch {
		case n <= len(ops):
			want = 1
			check(t, err)
		case n <= len(ops)+2:
			if !errors.Is(err, errInjected) {
				t.Errorf("operation %d fails: drained: %v", n, err)
			}
		default:
			check(t, err)
		}
		if bad != want {
			t.Errorf("operation %d fails, %d requests have errors", n, bad)
		}
		if n > len(ops)+2 {
			return
		}
	}
}

// An interrupt that cannot be raised ends the machine.
func TestLineFails(t *testing.T) {
	mem, line := newFakeMemory(drvMemory), newFakeLine()
	failed := make(chan error, 9)
	config := testConfig(t, mem, line)
	config.Fail = func(err error) { failed <- err }
	b := NewBlock(config, newFakeStorage(4096).disk())
	defer b.Close()
	line.arm(1)
	if err := b.Resume(); !errors.Is(err, errInjected) {
		t.Errorf("resumed: %v", err)
	}
	check(t, b.Resume())
	m := newBlockModel(newDriver(t, b, mem, line, 8, 0), 4096)
	line.arm(1) // first: the worker may still be looking at the queues for Resume
	m.request(blockIn, 0, nil, 512)
	m.kick(1)
	if err := receive(t, failed, "the error"); !errors.Is(err, errInjected) {
		t.Error(err)
	}
	// On a vCPU it is the access that fails.
	line.arm(1)
	if err := b.Write(regInterruptAck, []byte{3, 0, 0, 0}); !errors.Is(err, errInjected) {
		t.Error(err)
	}
}

// After a restore the line has the level that the device's state asks for, whatever it was.
func TestLineAfterResume(t *testing.T) {
	b, m, _ := testBlock(t, 4096)
	defer b.Close()
	m.request(blockIn, 0, nil, 512)
	m.kick(1)
	m.line.await(t)
	check(t, b.Drain())
	check(t, m.line.Set(false))
	check(t, b.Resume())
	if level, _ := m.line.get(); !level {
		t.Error("an unacknowledged interrupt is lost")
	}
	m.verify(m.await())
	m.set(regInterruptAck, interruptUsed)
	check(t, b.Drain())
	check(t, m.line.Set(true))
	check(t, b.Resume())
	if level, _ := m.line.get(); level {
		t.Error("the line is asserted without reason")
	}
}

// States that no device can have are refused, and those that one can have are taken as they are.
func TestVirtioRestore(t *testing.T) {
	b, _, _ := testBlock(t, 4096)
	defer b.Close()
	check(t, b.Drain())
	good := b.State()
	for name, change := range map[string]func(*BlockState){
		"unknown status":       func(s *BlockState) { s.Transport.Status |= 16 },
		"no driver":            func(s *BlockState) { s.Transport.Status &^= statusDriver },
		"not negotiated":       func(s *BlockState) { s.Transport.Status &^= statusFeaturesOK },
		"unknown feature":      func(s *BlockState) { s.Transport.DriverFeatures |= 1 << 50 },
		"legacy":               func(s *BlockState) { s.Transport.DriverFeatures &^= featureVersion1 },
		"interrupt":            func(s *BlockState) { s.Transport.Interrupt = 4 },
		"queue size":           func(s *BlockState) { s.Queue[0].Size = 9 },
		"queue too large":      func(s *BlockState) { s.Queue[0].Size = 512 },
		"queue outside of RAM": func(s *BlockState) { s.Queue[0].Used = 1 << 40 },
		"chain in work":        func(s *BlockState) { s.Queue[0].LastAvail++ },
		"chains in work": func(s *BlockState) {
			s.Queue[0].LastAvail += 2
			s.Transport.Status |= statusNeedsReset
		},
		"used before available": func(s *BlockState) { s.Queue[0].LastUsed++ },
		"ready":                 func(s *BlockState) { s.Queue[0].Ready = 2 },
		"not ready":             func(s *BlockState) { s.Queue[0].Ready, s.Queue[0].LastAvail = 0, 1 },
		"another size":          func(s *BlockState) { s.Sectors++ },
		"read-only":             func(s *BlockState) { s.ReadOnly = 1 },
	} {
		s := good
		change(&s)
		var bad *StateError
		if err := b.Restore(s); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*BlockState){
		"as it was":   func(*BlockState) {},
		"new":         func(s *BlockState) { s.Transport, s.Queue[0] = TransportState{}, QueueState{} },
		"wrapped":     func(s *BlockState) { s.Queue[0].LastAvail, s.Queue[0].LastUsed = 0xffff, 0xffff },
		"needs reset": func(s *BlockState) { s.Transport.Status |= 64; s.Queue[0].LastAvail++ },
		"generation":  func(s *BlockState) { s.Transport.Generation = 7 },
		"interrupt":   func(s *BlockState) { s.Transport.Interrupt = 3 },
	} {
		s := good
		change(&s)
		if err := b.Restore(s); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := b.State(); got != s {
			t.Errorf("%s: %+v became %+v", name, s, got)
		}
	}
	check(t, b.Restore(good))
	check(t, b.Resume())
	if b.Restore(good) == nil {
		t.Error("the state of a running device can be set")
	}
}
