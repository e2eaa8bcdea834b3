package vcpu

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/kvm"
)

// kickSignal makes a thread leave KVM_RUN. Nothing else in the process uses it, and the Go
// runtime's handler ignores it.
const kickSignal = unix.Signal(36)

// mode is what a vCPU does, or should do.
type mode int

const (
	modeParked  mode = iota // outside of the guest, with no access half done; runs jobs
	modeRunning             // in the guest, or about to enter it
	modeGone                // its goroutine has ended
)

// Thread runs one virtual CPU on its own goroutine and thread. The CPU's state is accessed only on that
// thread: not while it runs the guest, and by jobs ([Thread.Do]) while it is parked.
type Thread struct {
	KVM     *kvm.VCPU
	hooks   Hooks
	joined  chan struct{} // closed when the goroutine has returned
	pending bool          // an exit is not completed; owned by the goroutine

	stats *kvm.Stats // KVM's counters; nil where the kernel has none
	clock runClock
	exits exitCounts

	mu   sync.Mutex // guards what follows
	cond *sync.Cond
	tid  int // ID of the thread, valid from the first park on
	want mode
	is   mode
	jobs []func()
}

// Hooks are functions of the machine that a vCPU calls on its own thread.
type Hooks struct {
	Exit    func(c *Thread, reason kvm.ExitReason) error // handles an exit; an error ends the machine
	Ended   func(c *Thread, err error)                   // called once, when Exit or KVM_RUN has failed
	Started func(time.Time)                              // called before each entry after a park
}

func New(k *kvm.VCPU, h Hooks) *Thread {
	c := &Thread{KVM: k, hooks: h, joined: make(chan struct{}), is: modeRunning}
	c.cond = sync.NewCond(&c.mu)
	return c
}

// Launch starts the goroutine and waits until it is parked. If that fails, the vCPU is closed.
func (c *Thread) Launch() (err error) {
	// Now, while the vCPU does not run: the ioctl would wait until KVM_RUN returns.
	if c.stats, err = c.KVM.Stats(); err != nil && !errors.Is(err, kvm.ErrNoStats) {
		return errors.Join(err, c.close())
	}
	setup := make(chan error, 1)
	go c.loop(setup)
	if err := <-setup; err != nil {
		<-c.joined
		return errors.Join(err, c.close())
	}
	if err := c.park(); err != nil {
		return errors.Join(err, c.close())
	}
	return nil
}

// loop is the main function of the vCPU's goroutine.
func (c *Thread) loop(setup chan<- error) {
	defer close(c.joined)
	// Never unlocked: the thread ends with the goroutine, so a late kick cannot reach another goroutine.
	runtime.LockOSThread()
	c.mu.Lock()
	c.tid = unix.Gettid()
	c.mu.Unlock()
	err := c.KVM.SetSignalMask(kickSignal)
	setup <- err
	for err == nil && c.mayRun() {
		if err := c.enter(); err != nil {
			c.fail(err)
		}
	}
	c.mu.Lock()
	c.is = modeGone
	c.cond.Broadcast()
	c.mu.Unlock()
}

// fail ends the machine. The vCPU parks, so that jobs can read its state to explain the error.
func (c *Thread) fail(err error) {
	c.pending = false
	c.setWant(modeParked)
	c.hooks.Ended(c, err)
}

// mayRun parks and runs jobs until the vCPU should run or end. It says whether to enter the guest.
func (c *Thread) mayRun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	parked := false
	for {
		switch {
		case len(c.jobs) > 0:
			job := c.jobs[0]
			c.jobs = c.jobs[1:]
			c.mu.Unlock()
			job()
			c.mu.Lock()
		case c.want == modeGone:
			return false
		case c.want == modeRunning && parked:
			parked = false
			c.mu.Unlock()
			c.prepare()
			c.mu.Lock()
		case c.want == modeRunning:
			c.is = modeRunning
			return true
		case c.pending:
			c.mu.Unlock()
			c.settle()
			c.mu.Lock()
		default:
			parked = true
			c.is = modeParked
			c.cond.Broadcast()
			c.cond.Wait()
		}
	}
}

// prepare runs between a park and the next entry.
func (c *Thread) prepare() {
	c.KVM.ClearExitRequest()
	// Tell the guest that it was paused, so that its watchdog does not take the pause for a lockup.
	// This is done here, not at a pause or checkpoint, because it sets a bit in guest memory, which
	// might or might not be in the checkpoint. It fails with EINVAL if the guest does not use KVM's
	// clock; the worst effect of a failure is a warning in the guest.
	_ = c.KVM.KVMClockCtrl()
	c.hooks.Started(time.Now())
}

// enter runs the guest until its next exit, and handles that.
func (c *Thread) enter() error {
	c.clock.enter()
	reason, err := c.KVM.Run()
	c.clock.leave()
	return c.serve(reason, err)
}

// settle completes the access of the last exit, so that the registers are consistent and can be saved.
// It may take several rounds.
func (c *Thread) settle() {
	for c.pending {
		reason, done, err := c.KVM.CompleteExit()
		if done {
			c.pending = false
			return
		}
		if err := c.serve(reason, err); err != nil {
			c.fail(err)
			return
		}
	}
}

// serve handles the result of KVM_RUN.
func (c *Thread) serve(reason kvm.ExitReason, err error) error {
	switch {
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		c.pending = false // KVM_RUN completes it first
		return nil
	case errors.Is(err, unix.EFAULT) && reason == kvm.ExitMemoryFault:
		return c.hooks.Exit(c, reason)
	case errors.Is(err, unix.EFAULT):
		return ErrFault
	case err != nil:
		return err
	}
	c.exits.count(reason)
	c.pending = true // the next KVM_RUN completes it
	return c.hooks.Exit(c, reason)
}

// errGone: the operation needs a vCPU that is not closed.
var errGone = errors.New("the vCPU is closed")

// ErrRunning says that an operation needs a parked vCPU.
var ErrRunning = errors.New("the machine is running")

// ErrFault says that KVM_RUN failed with EFAULT: the kernel could not read a page of guest memory.
var ErrFault = errors.New("a page of guest memory could not be read (KVM_RUN: EFAULT)")

func (c *Thread) setWant(m mode) {
	c.mu.Lock()
	if c.want != modeGone {
		c.want = m
	}
	c.cond.Broadcast()
	c.mu.Unlock()
}

// kick makes the vCPU leave the guest and check what it should do. The exit request is set before the
// signal is sent; see package kvm.
func (c *Thread) kick() {
	// Under the lock, so that the thread and the shared page still exist: they are released after
	// modeGone is set.
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kickLocked()
}

func (c *Thread) kickLocked() {
	if c.is != modeGone {
		c.KVM.RequestExit()
		_ = unix.Tgkill(os.Getpid(), c.tid, kickSignal) // ESRCH: it has just ended, which is fine
	}
}

// AskToPark asks the vCPU to park; AwaitParked waits until it has. These are two steps, so that several
// vCPUs stop in parallel.
func (c *Thread) AskToPark() {
	c.setWant(modeParked)
	c.kick()
}

func (c *Thread) AwaitParked() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.is == modeRunning {
		c.cond.Wait()
	}
	if c.is == modeGone {
		return errGone
	}
	return nil
}

func (c *Thread) park() error {
	c.AskToPark()
	return c.AwaitParked()
}

// Run lets the vCPU enter the guest.
func (c *Thread) Run() { c.setWant(modeRunning) }

// Do runs a function on the vCPU's thread and returns its error. The vCPU must be parked: otherwise the
// error is [ErrRunning].
func (c *Thread) Do(f func() error) error {
	done := make(chan error, 1)
	c.mu.Lock()
	if c.is != modeParked || c.want != modeParked {
		c.mu.Unlock()
		return ErrRunning
	}
	c.jobs = append(c.jobs, func() { done <- f() })
	c.cond.Broadcast()
	c.mu.Unlock()
	return <-done
}

// Interject runs a function on the vCPU's thread between two entries, without parking it, and does not
// wait for it. It does nothing if the vCPU should not run.
func (c *Thread) Interject(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.is == modeGone || c.want != modeRunning {
		return
	}
	// A request to park is set before the exit request, so clearing the exit request here loses nothing.
	c.jobs = append(c.jobs, func() { f(); c.KVM.ClearExitRequest() })
	c.kickLocked()
}

// Stop ends the goroutine and waits for it, then closes the vCPU.
func (c *Thread) Stop() error {
	c.setWant(modeGone)
	c.kick()
	<-c.joined
	return c.close()
}

func (c *Thread) close() error {
	err := c.KVM.Close()
	if c.stats != nil {
		err = errors.Join(err, c.stats.Close())
	}
	return err
}

// Halts says whether the vCPU waits for an interrupt now, and how long it was halted in total. Without
// KVM's counters it returns zeros, and halts count as stalls.
func (c *Thread) Halts() (now bool, total time.Duration) {
	if c.stats == nil {
		return false, 0
	}
	all, err := c.stats.Read()
	if err != nil {
		return false, 0
	}
	return all["blocking"] != 0, time.Duration(all["halt_wait_ns"])
}

// Stalled returns how long the vCPU has waited for pages, plus the time that it was halted.
func (c *Thread) Stalled() time.Duration { return c.clock.stalled() }

// Exits returns the number of exits by their reason.
func (c *Thread) Exits() map[string]uint64 { return c.exits.byReason() }

// TID returns the ID of the vCPU's thread, for tracepoints and for its times in /proc.
func (c *Thread) TID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tid
}

// PageFaults returns how many page faults of the vCPU KVM has handled, and how many of them it fixed.
// ok is false if KVM has no counters (before Linux 5.14).
func (c *Thread) PageFaults() (taken, fixed uint64, ok bool) {
	if c.stats == nil {
		return 0, 0, false
	}
	all, err := c.stats.Read()
	return all["pf_taken"], all["pf_fixed"], err == nil
}

// exitCounts counts a vCPU's exits by their reason.
type exitCounts [64]atomic.Uint64

func (e *exitCounts) count(r kvm.ExitReason) { e[min(uint32(r), uint32(len(e)-1))].Add(1) }

func (e *exitCounts) byReason() map[string]uint64 {
	m := make(map[string]uint64)
	for i := range e {
		if n := e[i].Load(); n > 0 {
			m[kvm.ExitReason(i).String()] = n
		}
	}
	return m
}
