package fs

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"
)

// metrics are the server's totals since the mount, whatever was dropped meanwhile, in Prometheus'
// text format: .thaw/metrics. Image names are not in it; stats.json has them.
type metrics struct {
	srv        *Server
	reads      latencies
	readBytes  atomic.Uint64
	readErrors atomic.Uint64
	opens      atomic.Uint64
	pushes     atomic.Uint64
	pushBytes  atomic.Uint64
	dropped    atomic.Uint64
}

// latencyBounds are the upper bounds of the buckets of latencies.
var latencyBounds = [...]time.Duration{
	5 * time.Microsecond, 10 * time.Microsecond, 20 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond, time.Millisecond,
	5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, time.Second,
}

// latencies is a histogram.
type latencies struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

func (l *latencies) observe(d time.Duration) {
	i := 0
	for i < len(latencyBounds) && d > latencyBounds[i] {
		i++
	}
	l.buckets[i].Add(1)
	l.sum.Add(int64(d))
}

// text is the content of .thaw/metrics.
func (m *metrics) text() []byte {
	var b bytes.Buffer
	counter := func(name, help string, value uint64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s counter\n%s %d\n", name, help, name, name, value)
	}
	gauge := func(name, help string, value int64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", name, help, name, name, value)
	}
	m.histogram(&b)
	counter("thaw_fs_read_bytes_total", "Bytes of memory asked for by READs.", m.readBytes.Load())
	counter("thaw_fs_read_errors_total", "READs of memory that failed.",
		m.readErrors.Load())
	counter("thaw_fs_opens_total", "Opens of memory files.", m.opens.Load())
	counter("thaw_fs_pushes_total", "Runs of pages pushed into page caches.", m.pushes.Load())
	counter("thaw_fs_push_bytes_total", "Bytes pushed into page caches.", m.pushBytes.Load())
	counter("thaw_fs_pushes_dropped_total", "Pushes that found the pushers' queue full.",
		m.dropped.Load())
	open := 0
	entries := m.srv.tree.entries()
	for _, e := range entries {
		e.mu.Lock()
		open += e.opens
		e.mu.Unlock()
	}
	gauge("thaw_fs_checkpoints", "Checkpoints in the tree.", int64(len(entries)))
	gauge("thaw_fs_open_memories", "Open memory files.", int64(open))
	gauge("thaw_fs_reads_outstanding", "READs of memory not answered yet.",
		m.srv.demand.outstanding.Load())
	return b.Bytes()
}

func (m *metrics) histogram(b *bytes.Buffer) {
	const name = "thaw_fs_read_duration_seconds"
	fmt.Fprintf(b, "# HELP %s READs of memory, request to reply.\n", name)
	fmt.Fprintf(b, "# TYPE %s histogram\n", name)
	var total uint64
	for i := range m.reads.buckets {
		total += m.reads.buckets[i].Load()
		le := "+Inf"
		if i < len(latencyBounds) {
			le = fmt.Sprint(latencyBounds[i].Seconds())
		}
		fmt.Fprintf(b, "%s_bucket{le=%q} %d\n", name, le, total)
	}
	fmt.Fprintf(b, "%s_sum %g\n", name, time.Duration(m.reads.sum.Load()).Seconds())
	fmt.Fprintf(b, "%s_count %d\n", name, total)
}
