package uffd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startFake starts a pager for a fake VM. The returned function ends it, and gives why it failed.
func startFake(t *testing.T, v *fakeVM, src *fakeSource, policy Policy) (p *pager, end func() error) {
	t.Helper()
	p = newPager(t.Context(), src, newMemory(v.layout(), v), slog.New(slog.DiscardHandler))
	p.work.Go(func() { p.failed(v.serve(p)) })
	for range 4 {
		p.work.Go(p.answer)
	}
	p.work.Go(func() { p.bring(policy, func() {}) })
	return p, func() error {
		v.close()
		p.end(nil)
		p.queue.close()
		p.work.Wait()
		select {
		case err := <-p.fail:
			return err
		default:
			return nil
		}
	}
}

// TestLife: threads of a VM read, write and give back their pages at random, while the working set
// comes. Each knows what its pages must hold. Nothing is wrong, and nobody waits for ever.
func TestLife(t *testing.T) {
	for _, policy := range []Policy{Lazy, WorkingSet, Eager} {
		seed := rand.Uint64()
		t.Logf("%s: seed %d", policy, seed)
		testLife(t, policy, seed)
	}
}

func testLife(t *testing.T, policy Policy, seed uint64) {
	const pages, threads, steps = 768, 6, 400
	src := &fakeSource{pages: pages}
	v := newFakeVM(pages, seed)
	_, end := startFake(t, v, src, policy)
	watchdog := time.AfterFunc(time.Minute, v.close)
	defer watchdog.Stop()
	var work sync.WaitGroup
	for thread := range threads {
		work.Go(func() {
			l := &liver{v: v, src: src, rnd: rand.New(rand.NewPCG(seed, uint64(thread))), zeros: map[int]bool{},
				marks: map[int]uint64{}}
			for range steps {
				if err := l.step(l.rnd.IntN(pages/16/threads)*threads + thread); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	if err := end(); err != nil {
		t.Error(err)
	}
}

// A liver is a thread of a VM, and what it knows of its pages.
type liver struct {
	v     *fakeVM
	src   *fakeSource
	rnd   *rand.Rand
	zeros map[int]bool   // that were given back
	marks map[int]uint64 // that were written
}

// step does something with a stretch of 16 pages, which is this thread's.
func (l *liver) step(stretch int) error {
	page := stretch*16 + l.rnd.IntN(16)
	what := l.rnd.IntN(6)
	switch what {
	case 0, 1:
		n := 1 + l.rnd.IntN((stretch+1)*16-page)
		var other sync.WaitGroup
		if what == 1 { // while another thread looks at them
			for i := page; i < page+n; i++ {
				other.Go(func() { _ = l.v.touch(i, func([]byte) {}) })
			}
		}
		err := l.v.remove(page, n)
		other.Wait()
		if err != nil {
			return err
		}
		for i := page; i < page+n; i++ {
			l.zeros[i] = true
			delete(l.marks, i)
		}
	case 2:
		mark := l.rnd.Uint64() | 1
		l.marks[page] = mark
		return l.v.touch(page, func(b []byte) { binary.LittleEndian.PutUint64(b, mark) })
	}
	var wrong error
	err := l.v.touch(page, func(b []byte) {
		want := make([]byte, smallPage)
		if !l.zeros[page] {
			_ = l.src.fill(uint64(page), want)
		}
		if mark := l.marks[page]; mark != 0 {
			binary.LittleEndian.PutUint64(want, mark)
		}
		if !bytes.Equal(b, want) {
			wrong = errors.New("a page is wrong")
		}
	})
	return errors.Join(err, wrong)
}

// TestRemovedWhileWaitedFor: pages that one thread waits for and another gives back, for the first time.
// Whoever comes first, they are zeros afterwards.
func TestRemovedWhileWaitedFor(t *testing.T) {
	const pages = 6000
	src := &fakeSource{pages: pages, alone: true}
	v := newFakeVM(pages, 1)
	_, end := startFake(t, v, src, Lazy)
	watchdog := time.AfterFunc(time.Minute, v.close)
	defer watchdog.Stop()
	for page := range pages {
		var other sync.WaitGroup
		other.Go(func() { _ = v.touch(page, func([]byte) {}) })
		dawdle()
		err := v.remove(page, 1)
		other.Wait()
		err = errors.Join(err, v.touch(page, func(b []byte) {
			if !isZero(b) {
				t.Errorf("page %d came back", page)
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// TestBadPage: a page that cannot be read is nobody's trouble until somebody waits for it. Then the
// error names it.
func TestBadPage(t *testing.T) {
	src := &fakeSource{pages: 96, bad: map[uint64]bool{42: true}}
	v := newFakeVM(96, 1)
	p, end := startFake(t, v, src, Eager)
	for page := range 96 {
		if page != 42 {
			if err := v.touch(page, func([]byte) {}); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := make(chan error, 1)
	go func() { gone <- v.touch(42, func([]byte) { t.Error("a page that cannot be read was given") }) }()
	err := <-p.fail
	var lost *LostError
	if !errors.As(err, &lost) || lost.GFN != 42 || !errors.Is(err, errBad) {
		t.Errorf("the reason is %v", err)
	}
	if p.complete() {
		t.Error("with a page that cannot be read, memory counts as complete")
	}
	_ = end()
	if err := <-gone; err == nil {
		t.Error("the thread went on")
	}
}

// script is a kernel whose answers are given.
type script struct {
	answers []error
	done    []int
	calls   []string
}

func (s *script) next(call string) (done int, err error) {
	s.calls = append(s.calls, call)
	if len(s.answers) == 0 {
		return 0, unix.EINVAL
	}
	done, err = s.done[0], s.answers[0]
	s.done, s.answers = s.done[1:], s.answers[1:]
	return done, err
}

func (s *script) copy(uint64, []byte) (int, error) { return s.next("copy") }
func (s *script) zero(uint64, uint64) (int, error) { return s.next("zero") }
func (s *script) wake(uint64, uint64) error        { s.calls = append(s.calls, "wake"); return nil }
func (s *script) add(done int, err error) *script {
	s.done, s.answers = append(s.done, done), append(s.answers, err)
	return s
}
func (s *script) memory(units uint64) *memory {
	return newMemory(&layout{[]region{{fakeBase, units * smallPage, 0}}, smallPage}, s)
}

// TestAnswer: what the kernel may answer, and what is done then.
func TestAnswer(t *testing.T) {
	data := make([]byte, smallPage)
	for name, c := range map[string]struct {
		kernel  *script
		settled bool
		want    []string
		err     error
		then    bool // it is settled
	}{
		"there":    {new(script).add(smallPage, nil), false, []string{"copy"}, nil, true},
		"exists":   {new(script).add(0, unix.EEXIST), false, []string{"copy", "wake"}, nil, true},
		"unmapped": {new(script).add(0, unix.ENOENT), false, []string{"copy", "wake"}, nil, false},
		"changing": {
			new(script).add(0, unix.EAGAIN).add(smallPage, nil), false, []string{"copy", "copy"}, nil, true,
		},
		"ended":       {new(script).add(0, unix.ESRCH), false, []string{"copy"}, errGone, false},
		"no memory":   {new(script).add(0, unix.ENOMEM), false, []string{"copy"}, unix.ENOMEM, false},
		"given back":  {new(script).add(smallPage, nil), true, []string{"zero"}, nil, true},
		"two at once": {new(script).add(0, unix.EEXIST), true, []string{"zero", "wake"}, nil, true},
	} {
		m := c.kernel.memory(4)
		if c.settled {
			m.set(2)
		}
		err := m.answer(t.Context(), 2, data)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || m.has(2) != c.then {
			t.Errorf("%s: %v, settled %v", name, err, m.has(2))
		}
		if got := c.kernel.calls; !equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestBringInParts: a copy that stops in between goes on where it stopped, and over pages that are there.
func TestBringInParts(t *testing.T) {
	s := new(script).add(3*smallPage, unix.EAGAIN).add(0, unix.EAGAIN).add(0, unix.EEXIST).add(4*smallPage, nil)
	m := s.memory(16)
	m.set(8) // and one that is settled
	s.add(7*smallPage, nil)
	came, err := m.bring(t.Context(), 0, 16, make([]byte, 16*smallPage))
	if err != nil || came != 3+4+7 || m.count() != 16 {
		t.Errorf("%d came (%v), %d are settled: %v", came, err, m.count(), s.calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	again := new(script).add(0, unix.EAGAIN)
	if _, err := again.memory(1).bring(ctx, 0, 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestInstalled: kernels say in different ways how far a call came.
func TestInstalled(t *testing.T) {
	for _, c := range []struct {
		progress int64
		err      error
		want     int
	}{
		{8192, nil, 8192}, {4096, unix.EAGAIN, 4096}, {0, unix.EAGAIN, 0}, {-int64(unix.EAGAIN), unix.EAGAIN, 0},
		{-int64(unix.EEXIST), unix.EEXIST, 0}, {0, unix.EEXIST, 0}, {1 << 40, unix.EAGAIN, 8192},
	} {
		if got := installed(8192, c.progress, c.err); got != c.want {
			t.Errorf("progress %d, %v: %d, want %d", c.progress, c.err, got, c.want)
		}
	}
}

// TestProbe: what a VMM says of its memory and is not so.
func TestProbe(t *testing.T) {
	read := func(uint64) ([]byte, error) { return make([]byte, hugePage), nil }
	small := func(answers ...error) error {
		s := new(script)
		for _, err := range answers {
			s.add(map[bool]int{true: smallPage}[err == nil], err)
		}
		return s.memory(4).probe(t.Context(), func(uint64) ([]byte, error) { return make([]byte, smallPage), nil })
	}
	if err := small(nil, unix.EAGAIN, unix.EEXIST); err != nil {
		t.Error(err)
	}
	for _, err := range []error{
		small(unix.ENOENT), small(nil, unix.EINVAL), small(unix.ESRCH), small(unix.ENOMEM),
	} {
		if err == nil {
			t.Error("nothing is wrong")
		}
	}
	huge := func(s *script) error {
		m := newMemory(&layout{[]region{{fakeBase, 2 * hugePage, 0}}, hugePage}, s)
		return m.probe(t.Context(), read)
	}
	if err := huge(new(script).add(0, unix.EINVAL).add(hugePage, nil).add(hugePage, nil)); err != nil {
		t.Error(err)
	}
	for _, err := range []error{unix.EEXIST, nil} { // a small page can be installed
		if err := huge(new(script).add(smallPage, err)); err == nil {
			t.Error("small pages pass for huge ones")
		}
	}
}

// TestProbeEndsWithItsReader: memory that is changing when its messages are not read any more is not waited
// for.
func TestProbeEndsWithItsReader(t *testing.T) {
	src := &fakeSource{pages: 4}
	v := newFakeVM(4, 1)
	v.changing = 1
	p := newPager(t.Context(), src, newMemory(v.layout(), v), slog.New(slog.DiscardHandler))
	why := errors.New("an unknown message")
	p.end(why) // as the reader does
	s := &session{Options: Options{Source: src}}
	if err := s.probe(p); !errors.Is(err, why) {
		t.Errorf("the probe ended with %v", err)
	}
}

// TestFaultsOnPagesThatAreThere: write protection and minor faults are refused. To answer them as missing
// pages would go on for ever.
func TestFaultsOnPagesThatAreThere(t *testing.T) {
	const pages = 4
	for flags, served := range map[uint64]bool{
		0: true, 1: true, // a write to a missing page
		faultProtected: false, faultProtected | 1: false, faultMinor: false,
	} {
		v := newFakeVM(pages, 1)
		mem := newMemory(v.layout(), v)
		p := newPager(t.Context(), &fakeSource{pages: pages}, mem, slog.New(slog.DiscardHandler))
		m := message(make([]byte, messageSize))
		m[0] = eventPagefault
		binary.LittleEndian.PutUint64(m[8:], flags)
		binary.LittleEndian.PutUint64(m[16:], v.base+smallPage)
		if err := p.note(m, time.Now()); (err == nil) != served || p.queue.empty() == served {
			t.Errorf("a fault with flags %#x: %v", flags, err)
		}
		p.end(nil)
	}
}

// TestRemove: which pages a removal means, in regions that lie elsewhere than in the image.
func TestRemove(t *testing.T) {
	m := newMemory(&layout{[]region{{0x10000, 200 * smallPage, 100 * smallPage}, {0x800000, 100 * smallPage, 0}},
		smallPage}, new(script))
	if n := m.remove(0x10000+3*smallPage, 0x10000+150*smallPage); n != 147 || m.count() != 147 || m.has(102) ||
		!m.has(103) || !m.has(249) || m.has(250) {
		t.Errorf("%d pages, %d are settled", n, m.count())
	}
	if n := m.remove(0, 0x800000+2*smallPage); n != 202 || !m.has(1) || m.has(2) || m.count() != 202 {
		t.Errorf("%d pages, %d are settled", n, m.count())
	}
	if n := m.remove(0x900000, 0xa00000); n != 0 {
		t.Errorf("%d pages of no region", n)
	}
}

// TestTimes: a time is found again in the slots to an eighth.
func TestTimes(t *testing.T) {
	for ns := uint64(1); ns < 1<<40; ns = ns*9/8 + 1 {
		got := uint64(slotTime(timeSlot(ns)))
		if got > ns || ns-got > ns/8 {
			t.Errorf("%d is found as %d", ns, got)
		}
	}
	c := &counters{}
	for i := range 1000 {
		c.fault(time.Duration(i) * time.Microsecond)
	}
	if p50 := c.quantile(0.5); p50 < 400*time.Microsecond || p50 > 510*time.Microsecond {
		t.Errorf("p50 %v", p50)
	}
}

// ready is a kernel that does at once what it is told.
type ready struct{}

func (ready) copy(_ uint64, src []byte) (int, error) { return len(src), nil }
func (ready) zero(_, n uint64) (int, error)          { return int(n), nil }
func (ready) wake(uint64, uint64) error              { return nil }

// TestNoAllocations: answering a fault allocates nothing.
func TestNoAllocations(t *testing.T) {
	const pages = 4096
	l := &layout{[]region{{fakeBase, pages * smallPage, 0}}, smallPage}
	p := newPager(t.Context(), &fakeSource{pages: pages}, newMemory(l, ready{}), slog.New(slog.DiscardHandler))
	defer p.end(nil)
	w, unit := &worker{p: p}, uint64(0)
	m := message(make([]byte, messageSize))
	m[0] = eventPagefault
	if n := testing.AllocsPerRun(1000, func() {
		binary.LittleEndian.PutUint64(m[16:], fakeBase+unit*smallPage)
		if err := p.note(m, time.Time{}); err != nil {
			t.Fatal(err)
		}
		f, _ := p.queue.take()
		if _, err := w.answer(f.unit); err != nil {
			t.Fatal(err)
		}
		p.count.fault(time.Microsecond)
		p.queue.answered()
		unit = (unit + 1) % pages
	}); n >= 1 && !raceEnabled {
		t.Errorf("%v allocations a fault", n)
	}
}

// TestNeighbourhood: blocks whose pages are not used are soon not brought any more, those that are used
// are, and faults that are close to one another bring them back.
func TestNeighbourhood(t *testing.T) {
	n := newNeighbourhood()
	use := func(blocks int, used bool) (brought int) {
		for range blocks {
			block := rand.Uint64N(1 << 40)
			bring, gain := n.pays(block)
			if bring {
				brought++
			}
			if gain > 0 {
				n.probe(block+1, gain)
				if used {
					n.wanted(block + 1)
				}
			}
		}
		return brought
	}
	if got := use(1000, true); got != 1000 {
		t.Errorf("%d of 1000 blocks are brought that are used", got)
	}
	if got := use(1000, false); got > maxCredit {
		t.Errorf("%d of 1000 blocks are brought that are not used", got)
	}
	for range backCredit {
		n.pays(7)
	}
	if bring, _ := n.pays(8); !bring {
		t.Error("faults in one block do not bring blocks back")
	}
}
