package device

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// outputLimit is how many bytes may wait for a slow writer: enough for a whole boot log.
const outputLimit = 256 << 10

// output copies bytes from the guest to a writer, on a goroutine of its own.
//
// A writer that is slow, stopped or broken delays neither the vCPU nor a checkpoint. Bytes that exceed
// the limit, or that the writer fails to write, are dropped; a note in the output says how many are
// missing. The alternative, not to report the transmitter as empty, would be worse: a kernel waits up
// to 10 ms for each character of a message and then continues, so with a stopped terminal a boot would
// take minutes and still lose the messages.
type output struct {
	w      io.Writer
	log    *slog.Logger
	joined chan struct{} // closed when the goroutine has returned

	mu      sync.Mutex // guards what follows
	cond    *sync.Cond
	pending []byte
	gap     uint64 // bytes lost before pending, not yet reported
	dropped uint64 // bytes lost after pending
	lost    uint64 // bytes lost in total
	writing bool
	failing bool // the last write failed
	closed  bool
}

func newOutput(w io.Writer, log *slog.Logger) *output {
	o := &output{w: w, log: log, joined: make(chan struct{})}
	o.cond = sync.NewCond(&o.mu)
	go o.run()
	return o
}

// put takes a byte without waiting.
func (o *output) put(b byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.pending) >= outputLimit {
		o.dropped++
		o.lost++
		return
	}
	o.pending = append(o.pending, b)
	o.cond.Broadcast()
}

func (o *output) run() {
	defer close(o.joined)
	var chunk []byte
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.pending) == 0 && (o.gap == 0 || o.failing) {
			if o.closed {
				return
			}
			o.cond.Wait()
		}
		note := ""
		if o.gap > 0 {
			note = fmt.Sprintf("\r\n[%d bytes of output lost]\r\n", o.gap)
		}
		chunk = append(append(chunk[:0], note...), o.pending...)
		told := o.gap
		o.pending, o.gap, o.dropped = o.pending[:0], o.dropped, 0
		o.writing = true
		o.mu.Unlock()
		n, err := o.w.Write(chunk)
		o.mu.Lock()
		o.writing = false
		o.cond.Broadcast()
		if err == nil {
			o.failing = false
			continue
		}
		if !o.failing {
			o.log.Warn("console output is lost", "err", err)
		}
		o.failing = true
		if n < len(note) { // the note itself was not written
			n = len(note)
			o.gap += told
		}
		o.gap += uint64(len(chunk) - n)
		o.lost += uint64(len(chunk) - n)
	}
}

// flush waits until everything put so far has been written or lost.
func (o *output) flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.cond.Broadcast()
	})
	defer stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.pending) > 0 || o.writing {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("console output is not written yet: %w", err)
		}
		o.cond.Wait()
	}
	return nil
}

// close writes what is pending and ends the goroutine.
func (o *output) close() {
	o.mu.Lock()
	o.closed = true
	o.cond.Broadcast()
	o.mu.Unlock()
	<-o.joined
}
