package device

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// VirtioConfig is what a virtio device needs from its machine.
type VirtioConfig struct {
	RAM  *RAM
	Line Line
	// Fail is called, once, with an error on the device's own goroutine that ends the machine. It must
	// not wait for the device.
	Fail func(error)
	Log  *slog.Logger
}

// backend is the part of a virtio device that depends on its kind.
type backend interface {
	deviceID() uint32
	features() uint64 // offered in addition to those of the transport
	config() []byte   // configuration space, which never changes
	// serve serves one request and returns how many bytes of c.out it has filled. A *resetError makes
	// the device ask for a reset; any other error ends the machine.
	serve(c *chain, features uint64) (written uint32, err error)
	// settle is called by Drain, when no request is being served.
	settle() error
	close() error
}

// virtio is a device with the virtio-mmio transport. Its registers are in mmio.go, its worker and life
// cycle here.
//
// A vCPU that accesses a register holds mu for a short time. The worker, the device's only goroutine,
// holds it between requests. While it serves a request it holds no lock and owns the state of the
// queues; code that changes them stops the worker first.
type virtio struct {
	machine VirtioConfig
	backend backend
	joined  chan struct{} // closed when the worker has returned

	mu       sync.Mutex // guards what follows
	cond     *sync.Cond // signals every change that a goroutine may wait for
	state    TransportState
	queues   []*queue
	asserted bool
	busy     bool  // the worker serves a request
	stops    int   // number of goroutines that wait for the worker to stop
	drained  bool  // no request is taken
	closed   bool  // no request is taken, ever again
	broken   error // what ended the machine
}

// start makes the device, drained.
func (v *virtio) start(config VirtioConfig, b backend, queues int) {
	v.machine, v.backend = config, b
	v.joined = make(chan struct{})
	v.cond = sync.NewCond(&v.mu)
	v.drained = true
	for range queues {
		v.queues = append(v.queues, &queue{ram: config.RAM})
	}
	go v.work()
}

// work is the worker's loop.
func (v *virtio) work() {
	defer close(v.joined)
	v.mu.Lock()
	defer v.mu.Unlock()
	for !v.closed {
		q := v.kicked()
		if q == nil {
			v.cond.Wait()
			continue
		}
		// Reset before the ring is read: a kick that comes later must not be lost.
		q.kicked = false
		v.busy = true
		features := v.state.DriverFeatures
		v.mu.Unlock()
		found, interrupt, err := v.step(q, features)
		v.mu.Lock()
		v.busy = false
		q.kicked = q.kicked || found
		v.finish(interrupt, err)
		v.cond.Broadcast()
	}
}

// kicked returns a queue to serve; nil if there is none or the worker must not serve now.
func (v *virtio) kicked() *queue {
	if v.drained || v.stops > 0 || v.broken != nil || !v.running() {
		return nil
	}
	for _, q := range v.queues {
		if q.kicked && q.state.Ready != 0 {
			return q
		}
	}
	return nil
}

// step serves one request of a queue. The worker calls it without holding mu. found says that there was
// one; there may be more.
func (v *virtio) step(q *queue, features uint64) (found, interrupt bool, err error) {
	c, err := q.pop()
	if err != nil {
		return false, false, err
	}
	if c == nil {
		found, err = q.rearm()
		return found, false, err
	}
	written, err := v.backend.serve(c, features)
	if err != nil {
		return false, false, err
	}
	if err := q.push(c.head, written); err != nil {
		return false, false, err
	}
	interrupt, err = q.wantsInterrupt()
	return true, interrupt, err
}

// finish handles the result of a step: an interrupt for the guest, or an error that ends the machine.
// mu is held; it is released during the call of Fail.
func (v *virtio) finish(interrupt bool, err error) {
	var reset *resetError
	if errors.As(err, &reset) {
		err = v.needReset(reset)
	} else if err == nil && interrupt {
		err = v.interrupt(interruptUsed)
	}
	if err == nil {
		return
	}
	v.broken = fmt.Errorf("virtio device %d: %w", v.backend.deviceID(), err)
	v.mu.Unlock()
	v.machine.Fail(v.broken)
	v.mu.Lock()
}

// needReset stops the device until the driver resets it.
func (v *virtio) needReset(why error) error {
	v.machine.Log.Warn("virtio device needs a reset", "device", v.backend.deviceID(), "err", why)
	v.state.Status |= statusNeedsReset
	if v.state.Status&statusDriverOK == 0 {
		return nil // the driver reads the status when it continues
	}
	return v.interrupt(interruptConfig)
}

// interrupt adds a reason to the interrupt status.
func (v *virtio) interrupt(reason uint32) error {
	v.state.Interrupt |= reason
	return v.setLine()
}

// setLine asserts the line if there is a reason, and deasserts it if not.
func (v *virtio) setLine() error {
	level := v.state.Interrupt != 0
	if level == v.asserted {
		return nil
	}
	v.asserted = level
	return v.machine.Line.Set(level)
}

// stop waits until the worker has finished its current request. The worker starts no other before mu is
// released. mu is held.
func (v *virtio) stop() {
	v.stops++
	for v.busy {
		v.cond.Wait()
	}
	v.stops--
	v.cond.Broadcast()
}

// Drain returns when no request is being served. None is taken before Resume; available requests stay
// in the ring.
func (v *virtio) Drain() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drained = true
	v.stop()
	if v.broken != nil {
		return v.broken
	}
	return v.backend.settle()
}

// Resume allows requests to be taken, and sets the interrupt line.
func (v *virtio) Resume() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.broken != nil {
		return v.broken
	}
	v.drained = false
	v.kickAll()
	v.asserted = v.state.Interrupt != 0
	return v.machine.Line.Set(v.asserted)
}

// kickAll makes the worker check every queue: the driver will not kick again for requests that are in
// the rings already, perhaps since before a checkpoint.
func (v *virtio) kickAll() {
	for _, q := range v.queues {
		q.kicked = true
	}
	v.cond.Broadcast()
}

// Close waits for the current request and ends the worker. The driver gets no further answers.
func (v *virtio) Close() error {
	v.mu.Lock()
	again := v.closed
	v.closed = true
	v.cond.Broadcast()
	v.mu.Unlock()
	<-v.joined
	if again {
		return nil
	}
	return v.backend.close()
}
