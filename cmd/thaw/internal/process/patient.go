package process

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// PatientWriter writes in a goroutine of its own, so that logging never waits: not for a pipe
// that nobody reads, a stopped terminal or a slow disk. What does not fit is left out, which is said
// once there is room again. Errors are dropped: there is nowhere to tell them.
type PatientWriter struct {
	w     io.Writer
	queue chan []byte
	done  chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex // guards what follows, and queue against being closed under a Write
	lost   int        // writes left out since that was last said
	closed bool
}

const (
	patientLines = 1024        // how many writes wait
	drainTime    = time.Second // how long Close waits for them to be written
)

// NewPatientWriter begins to write to w. Close ends it.
func NewPatientWriter(w io.Writer) *PatientWriter {
	p := &PatientWriter{w: w, queue: make(chan []byte, patientLines), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for line := range p.queue {
			_, _ = p.w.Write(line)
		}
	}()
	return p
}

// Write implements io.Writer. It takes all, at once.
func (p *PatientWriter) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return len(line), nil
	}
	if p.lost > 0 && p.put(fmt.Appendf(nil, "thaw: %d messages were left out here\n", p.lost)) {
		p.lost = 0
	}
	if p.lost > 0 || !p.put(bytes.Clone(line)) {
		p.lost++
	}
	return len(line), nil
}

func (p *PatientWriter) put(line []byte) bool {
	select {
	case p.queue <- line:
		return true
	default:
		return false
	}
}

// Close writes what waits, as far as that can be written at all: then it leaves the goroutine to end
// with the process.
func (p *PatientWriter) Close() {
	p.mu.Lock()
	p.closed = true
	close(p.queue)
	p.mu.Unlock()
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
}
