package uffd

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// memory is a VM's memory, and which of its pages are not to come from the image any more. Its pages are
// units here: 4 KiB or 2 MiB.
type memory struct {
	*layout
	uf userfault

	// reading is held for writing while messages are read and noted, and for reading from the look at a
	// page's bit until the page was installed and its bit set (doc.go says why). It is never held over I/O.
	reading sync.RWMutex
	// settled has a bit for each unit that was installed or removed: it is never unset.
	settled []atomic.Uint64
	zeros   []byte // a unit of zeros, where they cannot be mapped
}

// errGone: the VM has no memory any more, because it has ended.
var errGone = errors.New("the VM has ended")

func newMemory(l *layout, uf userfault) *memory {
	m := &memory{layout: l, uf: uf, settled: make([]atomic.Uint64, (l.units()+63)/64)}
	if l.pageSize != smallPage {
		m.zeros = make([]byte, l.pageSize)
	}
	return m
}

func (m *memory) has(unit uint64) bool { return m.settled[unit/64].Load()>>(unit%64)&1 != 0 }

func (m *memory) set(unit uint64) { m.settled[unit/64].Or(1 << (unit % 64)) }

// count is how many units are settled.
func (m *memory) count() (n uint64) {
	for i := range m.settled {
		n += uint64(bits.OnesCount64(m.settled[i].Load()))
	}
	return n
}

// remove notes that the VM has given memory back, and says how many units that are. The lock is held.
func (m *memory) remove(start, end uint64) (n uint64) {
	for _, r := range m.regions {
		from, to := max(start, r.base), min(end, r.base+r.size)
		if from >= to {
			continue
		}
		first := (from - r.base + r.offset + m.pageSize - 1) / m.pageSize
		last := (to - r.base + r.offset) / m.pageSize
		for unit := first; unit < last; {
			if unit%64 == 0 && last-unit >= 64 {
				m.settled[unit/64].Store(^uint64(0))
				unit += 64
				continue
			}
			m.set(unit)
			unit++
		}
		n += max(last, first) - first
	}
	return n
}

// maxStep is how many units are installed by one call: the reader of messages waits so long at most.
const maxStep = 16

// answer installs a unit that a thread waits for: data, or zeros if it is nil or the unit is settled. It
// wakes who waits for it in any case but an error, after which they wait still.
func (m *memory) answer(ctx context.Context, unit uint64, data []byte) error {
	at, _ := m.place(unit)
	for tries := 0; ; tries++ {
		_, err := m.one(unit, at, data)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOENT):
			// It is there, or was unmapped: whoever waits for it has to look again.
			return m.uf.wake(at, m.pageSize)
		case errors.Is(err, unix.ESRCH):
			return errGone
		case !errors.Is(err, unix.EAGAIN):
			return err
		}
		if err := backOff(ctx, tries); err != nil {
			return err
		}
	}
}

// one tries to install a unit.
func (m *memory) one(unit, at uint64, data []byte) (done uint64, err error) {
	m.reading.RLock()
	defer m.reading.RUnlock()
	if m.has(unit) {
		data = nil
	}
	done, err = m.put(at, 1, data)
	if done > 0 || errors.Is(err, unix.EEXIST) {
		m.set(unit)
	}
	return done, err
}

// bring installs those of n units from first on that are not settled, data or zeros, as far as they are there
// to be installed. It gives how many it has.
func (m *memory) bring(ctx context.Context, first, n uint64, data []byte) (brought uint64, err error) {
	for tries := 0; n > 0; {
		took, came, err := m.step(first, n, data)
		brought += came
		if first, n = first+took, n-took; data != nil {
			data = data[took*m.pageSize:]
		}
		if took > 0 {
			tries = 0
		}
		switch {
		case err == nil:
		case errors.Is(err, unix.ESRCH):
			return brought, errGone
		case !errors.Is(err, unix.EAGAIN):
			return brought, err
		case took == 0:
			if err := backOff(ctx, tries); err != nil {
				return brought, err
			}
			tries++
		}
	}
	return brought, nil
}

// step goes over some of n units, at least one unless there is an error, and installs those that are not
// settled.
func (m *memory) step(first, n uint64, data []byte) (took, came uint64, err error) {
	at, run := m.place(first)
	n = min(n, run, maxStep)
	m.reading.RLock()
	defer m.reading.RUnlock()
	settled := m.has(first)
	k := uint64(1)
	for k < n && m.has(first+k) == settled {
		k++
	}
	if settled {
		return k, 0, nil
	}
	if came, err = m.put(at, k, data); errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) {
		// Another one has installed it, or it was unmapped. Somebody may wait for it.
		m.set(first)
		return 1, 0, m.uf.wake(at, m.pageSize)
	}
	for i := range came {
		m.set(first + i)
	}
	return came, came, err
}

// put installs n units, data or zeros, and gives how many it has. With an error and none of them, the first
// was not installed.
func (m *memory) put(at, n uint64, data []byte) (uint64, error) {
	var done int
	var err error
	switch {
	case data != nil:
		done, err = m.uf.copy(at, data[:n*m.pageSize])
	case m.zeros == nil:
		done, err = m.uf.zero(at, n*m.pageSize)
	default:
		done, err = m.uf.copy(at, m.zeros)
	}
	if got := uint64(done) / m.pageSize; got > 0 {
		return got, nil
	}
	return 0, err
}

// backOff waits before another try, since the memory of the VM is changing. What ends that is a message that
// another goroutine reads, and then a thread of the VM that has to run: nothing says when it has.
func backOff(ctx context.Context, tries int) error {
	if tries < 4 {
		runtime.Gosched()
		return context.Cause(ctx)
	}
	t := time.NewTimer(min(20*time.Microsecond<<min(tries-4, 8), time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// probe installs the first and the last page of each region, and so finds regions that the VMM does not have,
// has not registered, or has with other pages. read gives the bytes of a unit.
func (m *memory) probe(ctx context.Context, read func(unit uint64) ([]byte, error)) error {
	for i, r := range m.regions {
		for _, at := range []uint64{r.base, r.base + r.size - m.pageSize} {
			unit, _ := m.unit(at)
			data, err := read(unit)
			if err == nil && at == r.base {
				err = m.probeSize(ctx, r, data)
			}
			if err == nil {
				err = m.probePage(ctx, unit, at, data)
			}
			if err != nil {
				return fmt.Errorf("region %d, page at %#x: %w", i, at, err)
			}
		}
	}
	return nil
}

func (m *memory) probePage(ctx context.Context, unit, at uint64, data []byte) error {
	for tries := 0; ; tries++ {
		_, err := m.one(unit, at, data)
		switch {
		case err == nil || errors.Is(err, unix.EEXIST):
			return m.uf.wake(at, m.pageSize)
		case errors.Is(err, unix.ESRCH):
			return errGone
		case errors.Is(err, unix.ENOENT):
			return errors.New("no memory there that is registered with the userfaultfd")
		case errors.Is(err, unix.EINVAL):
			return fmt.Errorf("it is no page of %d bytes", m.pageSize)
		case !errors.Is(err, unix.EAGAIN):
			return err
		}
		if err := backOff(ctx, tries); err != nil {
			return err
		}
	}
}

// probeSize finds memory with small pages that is said to have huge ones: of a huge page no part can be
// installed. data is what the region begins with.
func (m *memory) probeSize(ctx context.Context, r region, data []byte) error {
	for tries := 0; m.pageSize == hugePage; tries++ {
		_, err := m.uf.copy(r.base, data[:smallPage])
		switch {
		case err == nil || errors.Is(err, unix.EEXIST):
			return fmt.Errorf("its pages do not have %d bytes", m.pageSize)
		case !errors.Is(err, unix.EAGAIN):
			return nil // what else is wrong shows when the page is installed
		}
		if err := backOff(ctx, tries); err != nil {
			return err
		}
	}
	return nil
}
