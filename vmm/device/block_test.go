package device

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// blockRequest is one request on its way, and its expected result.
type blockRequest struct {
	slot   int
	size   uint32 // bytes before the status byte
	data   []byte // expected in the buffer, for a read
	status byte
}

// blockModel is a driver with a model of the disk. The device does requests in order, so what each
// must come to is known when it is made.
type blockModel struct {
	*driver
	disk   []byte
	slots  []int
	flying map[uint16]blockRequest
}

func newBlockModel(d *driver, size int) *blockModel {
	m := &blockModel{driver: d, disk: make([]byte, size), flying: map[uint16]blockRequest{}}
	for i := range 32 {
		m.slots = append(m.slots, i)
	}
	return m
}

func blockHeaderBytes(op uint32, sector uint64) []byte {
	return le.AppendUint64(le.AppendUint32(le.AppendUint32(nil, op), 0), sector)
}

// request adds one request. A buffer slot holds the header, the data and the status byte.
func (m *blockModel) request(op uint32, sector uint64, data []byte, size uint32) bool {
	if len(m.slots) == 0 {
		return false
	}
	r := blockRequest{slot: m.slots[0], size: size}
	base := uint64(drvBufs + r.slot*drvBuf)
	at := base + blockHeader
	m.mem.put(base, append(blockHeaderBytes(op, sector), data...))
	var bufs []buf
	if op == blockIn || op == blockGetID {
		bufs = m.cut(base, blockHeader, false, 2)
		// The status byte may share a buffer with the data.
		bufs = append(bufs, m.cut(at, size+1, true, 6)...)
	} else {
		bufs = m.cut(base, blockHeader+uint32(len(data)), false, 6)
		bufs = append(bufs, buf{at + uint64(size), 1, true})
	}
	m.mem.put(at+uint64(size), []byte{0xee})
	head, ok := m.add(bufs)
	if ok {
		m.slots = m.slots[1:]
		r.status, r.data = m.apply(op, sector, data, size)
		m.flying[head] = r
	}
	return ok
}

// apply is the model.
func (m *blockModel) apply(op uint32, sector uint64, data []byte, size uint32) (byte, []byte) {
	fits := func(sector uint64, n int) bool {
		return n%512 == 0 && sector <= uint64(len(m.disk))/512 && n <= len(m.disk)-int(sector)*512
	}
	switch op {
	case blockIn:
		if !fits(sector, int(size)) {
			return blockIOError, nil
		}
		return blockOK, bytes.Clone(m.disk[sector*512:][:size])
	case blockOut:
		if !fits(sector, len(data)) {
			return blockIOError, nil
		}
		copy(m.disk[sector*512:], data)
	case blockFlush:
	case blockGetID:
		id := make([]byte, blockIDBytes)
		copy(id, "disk.img")
		return blockOK, id[:min(size, blockIDBytes)]
	case blockDiscard, blockWriteZeroes:
		if len(data)%16 != 0 {
			return blockIOError, nil
		}
		for ; len(data) > 0; data = data[16:] {
			from, n := le.Uint64(data), int(le.Uint32(data[8:]))*512
			if !fits(from, n) {
				return blockIOError, nil
			}
			clear(m.disk[from*512:][:n])
		}
	default:
		return blockUnsupported, nil
	}
	return blockOK, nil
}

// random adds a random request.
func (m *blockModel) random() bool {
	r := m.rand
	sectors := uint64(len(m.disk)) / 512
	sector, size := r.Uint64N(sectors+1), 512*(1+r.Uint32N(16))
	switch n := r.IntN(20); {
	case n < 8:
		return m.request(blockIn, sector, nil, size)
	case n < 15:
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		return m.request(blockOut, sector, data, size)
	case n < 16:
		return m.request(blockFlush, 0, nil, 0)
	case n < 17:
		return m.request(blockGetID, 0, nil, 1+r.Uint32N(40))
	case n < 18:
		var data []byte
		for range 1 + r.IntN(3) {
			data = le.AppendUint64(data, r.Uint64N(sectors))
			data = le.AppendUint64(data, uint64(r.Uint32N(8)))
		}
		return m.request([]uint32{blockDiscard, blockWriteZeroes}[r.IntN(2)], 0, data, uint32(len(data)))
	case n < 19:
		return m.request(blockIn, sector, nil, 1+r.Uint32N(1024)) // mostly no whole sectors
	}
	return m.request(77, sector, nil, 0)
}

// verify compares what has come back with the model.
func (m *blockModel) verify(all []done) {
	m.t.Helper()
	for _, u := range all {
		r := m.flying[u.head]
		delete(m.flying, u.head)
		m.slots = append(m.slots, r.slot)
		m.check(r, u)
	}
}

func (m *blockModel) check(r blockRequest, u done) {
	m.t.Helper()
	base := uint64(drvBufs + r.slot*drvBuf)
	op := le.Uint32(m.mem.get(base, 4))
	if want := uint32(len(r.data)) + 1; u.written != want {
		m.t.Fatalf("op %d wrote %d bytes, expected %d", op, u.written, want)
	}
	if got := m.status(r); got != r.status {
		m.t.Fatalf("op %d: status %d, expected %d", op, got, r.status)
	}
	if got := m.mem.get(base+blockHeader, len(r.data)); !bytes.Equal(got, r.data) {
		m.t.Fatalf("op %d: wrong data", op)
	}
}

// status is the status byte of a request.
func (m *blockModel) status(r blockRequest) byte {
	return m.mem.get(uint64(drvBufs+r.slot*drvBuf)+blockHeader+uint64(r.size), 1)[0]
}

// Random requests, split at random, with the device saved and made again at random moments, must give
// the same results as a simple model of a disk.
func TestBlockAgainstAModel(t *testing.T) {
	const size = 256 << 10
	for seed := range uint64(4) {
		refuse := []uint64{0, featureEventIdx, featureIndirect, featureEventIdx | featureIndirect}[seed]
		path := diskFile(t, size)
		mem, line := newFakeMemory(drvMemory), newFakeLine()
		set, block := blockSet(t, path, mem, line)
		check(t, set.Resume())
		m := newBlockModel(newDriver(t, block, mem, line, 64, refuse), size)
		m.rand = rand.New(rand.NewPCG(seed, 7))
		for range 300 {
			var n uint16
			for range 1 + m.rand.IntN(8) {
				if m.random() {
					n++
				}
			}
			m.kick(n)
			if m.rand.IntN(8) == 0 {
				set, m.dev = recreate(t, set, path, mem, line)
			}
			if m.rand.IntN(2) == 0 {
				m.verify(m.collect())
			} else {
				m.verify(m.await())
			}
		}
		m.verify(m.await())
		check(t, set.Drain())
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, m.disk) {
			t.Fatalf("seed %d: the file is not what the model has (%v)", seed, err)
		}
		check(t, set.Close())
		t.Logf("seed %d: %d requests, %d kicks, %d interrupts", seed, m.avail, m.kicks, line.edges)
	}
}

func blockSet(t *testing.T, path string, mem *fakeMemory, line *fakeLine) (*Set, *Block) {
	t.Helper()
	disk, err := OpenDisk(path, false)
	check(t, err)
	b := NewBlock(testConfig(t, mem, line), disk)
	set := NewSet()
	check(t, Add(set, b))
	return set, b
}

// recreate saves a machine's devices and goes on with new ones, as another process would.
func recreate(t *testing.T, set *Set, path string, mem *fakeMemory, line *fakeLine) (*Set,
	Handler) {
	t.Helper()
	check(t, set.Drain())
	sections, err := set.States()
	check(t, err)
	check(t, set.Close())
	// What a checkpoint does not have: the level of the line.
	check(t, line.Set(false))
	set, block := blockSet(t, path, mem, line)
	check(t, set.Restore(sections))
	check(t, set.Resume())
	return set, block
}

// One request of each kind, to the status byte.
func TestBlockStatus(t *testing.T) {
	const size = 64 << 10
	tests := []struct {
		op       uint32
		sector   uint64
		data     []byte
		size     uint32
		readOnly bool
		want     byte
	}{
		{op: blockIn, sector: 0, size: 512},
		{op: blockIn, sector: 127, size: 512},
		{op: blockIn, sector: 128, size: 512, want: blockIOError},
		{op: blockIn, sector: 127, size: 1024, want: blockIOError},
		{op: blockIn, sector: 1 << 63, size: 512, want: blockIOError},
		{op: blockIn, sector: ^uint64(0), size: 512, want: blockIOError},
		{op: blockIn, sector: 0, size: 511, want: blockIOError},
		{op: blockOut, sector: 1, data: make([]byte, 512), size: 512},
		{op: blockOut, sector: 128, data: make([]byte, 512), size: 512, want: blockIOError},
		{op: blockOut, sector: 1, data: make([]byte, 512), size: 512, readOnly: true, want: blockIOError},
		{op: blockIn, sector: 1, size: 512, readOnly: true},
		{op: blockFlush, readOnly: true},
		{op: blockFlush},
		{op: blockGetID, size: 20},
		{op: 3, want: blockUnsupported},
		{op: blockDiscard, data: make([]byte, 16), size: 16},
		{op: blockDiscard, data: make([]byte, 16), size: 16, readOnly: true, want: blockIOError},
		{op: blockDiscard, data: make([]byte, 15), size: 15, want: blockIOError},
		{op: blockDiscard, data: make([]byte, 16*17), size: 16 * 17, want: blockIOError},
		{op: blockDiscard, data: zeroRange(0, 1, 1), size: 16, want: blockUnsupported},
		{op: blockWriteZeroes, data: zeroRange(0, 1, 1), size: 16},
		{op: blockWriteZeroes, data: zeroRange(0, 1, 2), size: 16, want: blockUnsupported},
		{op: blockWriteZeroes, data: zeroRange(127, 2, 0), size: 16, want: blockIOError},
		{op: blockWriteZeroes, data: zeroRange(0, 1<<31, 0), size: 16, want: blockIOError},
		{op: blockWriteZeroes, data: zeroRange(^uint64(0), 1, 0), size: 16, want: blockIOError},
	}
	for _, c := range tests {
		disk, err := OpenDisk(diskFile(t, size), c.readOnly)
		check(t, err)
		mem, line := newFakeMemory(drvMemory), newFakeLine()
		b := NewBlock(testConfig(t, mem, line), disk)
		check(t, b.Resume())
		m := newBlockModel(newDriver(t, b, mem, line, 8, 0), size)
		if ro := m.features&blockFeatureReadOnly != 0; ro != c.readOnly {
			t.Errorf("features %#x of a disk that is read-only: %v", m.features, c.readOnly)
		}
		m.request(c.op, c.sector, c.data, c.size)
		m.kick(1)
		m.await()
		for _, r := range m.flying {
			if got := m.status(r); got != c.want {
				t.Errorf("%+v: status %d", c, got)
			}
		}
		check(t, b.Close())
	}
}

func zeroRange(sector uint64, n, flags uint32) []byte {
	return le.AppendUint32(le.AppendUint32(le.AppendUint64(nil, sector), n), flags)
}

func TestBlockConfig(t *testing.T) {
	mem, line := newFakeMemory(drvMemory), newFakeLine()
	b := NewBlock(testConfig(t, mem, line), newFakeStorage(512*9).disk())
	defer b.Close()
	for _, c := range []struct {
		off  uint64
		size int
		want uint64
	}{
		{0, 8, 9}, {0, 4, 9}, {0, 1, 9}, {4, 4, 0}, {8, 4, blockSizeMax}, {12, 4, blockSegMax},
		{20, 4, 512}, {56, 1, 1}, {56, 8, 1}, {59, 4, 0}, {60, 4, 0}, {0xeff, 1, 0},
	} {
		p := bytes.Repeat([]byte{0xee}, c.size)
		check(t, b.Read(regConfig+c.off, p))
		if got := le.Uint64(append(p, make([]byte, 8)...)); got != c.want {
			t.Errorf("%d bytes at %d: %#x, expected %#x", c.size, c.off, got, c.want)
		}
	}
	check(t, b.Write(regConfig, []byte{1, 2, 3, 4})) // changes nothing
	if got := b.disk.sectors; got != 9 {
		t.Errorf("%d sectors", got)
	}
}

// For a driver without flushes every write is on the medium before it completes.
func TestBlockWithoutFlush(t *testing.T) {
	for _, refuse := range []uint64{0, blockFeatureFlush} {
		storage := newFakeStorage(4096)
		mem, line := newFakeMemory(drvMemory), newFakeLine()
		b := NewBlock(testConfig(t, mem, line), storage.disk())
		check(t, b.Resume())
		m := newBlockModel(newDriver(t, b, mem, line, 8, refuse), 4096)
		m.request(blockOut, 0, bytes.Repeat([]byte{7}, 512), 512)
		m.kick(1)
		m.verify(m.await())
		if synced := storage.synced[0] == 7; synced != (refuse != 0) {
			t.Errorf("flushes refused %v, synced %v", refuse != 0, synced)
		}
		// What is saved agrees with the medium.
		check(t, b.Drain())
		if storage.synced[0] != 7 {
			t.Error("a drained disk is not synced")
		}
		check(t, b.Close())
	}
}

// An error of a write-back during a Drain is reported to the guest by its next flush, once.
func TestBlockLateError(t *testing.T) {
	storage := newFakeStorage(4096)
	mem, line := newFakeMemory(drvMemory), newFakeLine()
	b := NewBlock(testConfig(t, mem, line), storage.disk())
	defer b.Close()
	check(t, b.Resume())
	m := newBlockModel(newDriver(t, b, mem, line, 8, 0), 4096)
	m.request(blockOut, 0, make([]byte, 512), 512)
	m.kick(1)
	m.verify(m.await())
	storage.arm(1)
	if err := b.Drain(); !errors.Is(err, errInjected) {
		t.Fatalf("drained: %v", err)
	}
	if err := b.Drain(); !errors.Is(err, errInjected) {
		t.Fatalf("drained again, before the guest knows: %v", err)
	}
	check(t, b.Resume())
	for _, want := range []byte{blockIOError, blockOK} {
		m.request(blockFlush, 0, nil, 0)
		m.kick(1)
		m.await()
		for head, r := range m.flying {
			if got := m.status(r); got != want {
				t.Errorf("flush: status %d, expected %d", got, want)
			}
			delete(m.flying, head)
		}
	}
	check(t, b.Drain())
}

func TestOpenDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.img")
	for size, ok := range map[int64]bool{0: false, 511: false, 512: true, 1 << 20: true, 513: false} {
		check(t, os.WriteFile(path, make([]byte, size), 0o644))
		d, err := OpenDisk(path, false)
		if (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
		if err == nil {
			check(t, d.Close())
		}
	}
	check(t, os.WriteFile(path, make([]byte, 512), 0o644))
	for _, other := range []string{dir, filepath.Join(dir, "none"), os.DevNull} {
		if d, err := OpenDisk(other, true); err == nil {
			d.Close()
			t.Errorf("%s is opened as a disk", other)
		}
	}
	for _, c := range []struct {
		first, second bool // read-only
		ok            bool
		says          string
	}{
		{true, true, true, ""},
		{false, false, false, "in use by another process"},
		{false, true, false, "being written by another process"},
		{true, false, false, "in use by another process"},
	} {
		d, err := OpenDisk(path, c.first)
		check(t, err)
		other, err := OpenDisk(path, c.second)
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			check(t, other.Close())
		}
		check(t, d.Close())
	}
}

// What a real file does that the fake does not.
func TestFileStorage(t *testing.T) {
	const size = 1 << 20
	path := diskFile(t, size)
	check(t, os.WriteFile(path, bytes.Repeat([]byte{1}, size), 0o644))
	d, err := OpenDisk(path, false)
	check(t, err)
	defer d.Close()
	check(t, d.storage.Zero(4096, 8192, false))
	check(t, d.storage.Zero(65536, 512, true))
	check(t, d.storage.Discard(131072, 65536))
	check(t, d.storage.Sync())
	got, err := os.ReadFile(path)
	check(t, err)
	for _, r := range []struct{ from, to int }{{4096, 12288}, {65536, 66048}, {131072, 196608}} {
		if !bytes.Equal(got[r.from:r.to], make([]byte, r.to-r.from)) {
			t.Errorf("%d..%d are not zero", r.from, r.to)
		}
	}
	if got[4095] != 1 || got[12288] != 1 || got[66048] != 1 || len(got) != size {
		t.Error("more than that has changed")
	}
	if n := bytes.Count(got, []byte{1}); n != size-8192-512-65536 {
		t.Errorf("%d bytes are left", n)
	}
	if changed, err := d.storage.Changed(); err != nil || changed.Before(time.Unix(1e9, 0)) {
		t.Errorf("changed %v, %v", changed, err)
	}
}

// A file system without fallocate gets zeros written.
func TestWriteZeros(t *testing.T) {
	s := newFakeStorage(3 * blockBuffer)
	for i := range s.bytes {
		s.bytes[i] = 1
	}
	check(t, writeZeros(s, 512, 2*blockBuffer+512))
	if n := bytes.Count(s.bytes, []byte{0}); n != 2*blockBuffer+512 || s.bytes[511] != 1 ||
		s.bytes[512+2*blockBuffer+512] != 1 {
		t.Errorf("%d zeros", n)
	}
	s.arm(2)
	if err := writeZeros(s, 0, 2*blockBuffer); !errors.Is(err, errInjected) {
		t.Error(err)
	}
}
