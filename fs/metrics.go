package fs

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// metrics are the server's totals since the mount, including what was counted before a drop; imageMetrics
// are by checkpoint. Handlers add to the atomics, which costs a READ
// nothing; the registry reads them when somebody asks.
type metrics struct {
	reads      latencies
	restores   latencies
	readBytes  atomic.Uint64
	readErrors atomic.Uint64
	opens      atomic.Uint64
	pushes     atomic.Uint64
	pushBytes  atomic.Uint64
	dropped    atomic.Uint64
	pushErrors atomic.Uint64
	panics     atomic.Uint64
	fillBytes  atomic.Uint64
	fills      atomic.Uint64
	takeovers  atomic.Uint64
	playout    playoutMetrics

	registry *prometheus.Registry
}

func newMetrics(s *Server) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.reads.desc = prometheus.NewDesc("thaw_fs_read_duration_seconds",
		"READs of memory, from request to reply.", nil, nil)
	m.restores.desc = prometheus.NewDesc("thaw_fs_restore_wait_seconds",
		"Opens of memory that waited for a restore, from open to return.", nil, nil)
	m.registry.MustRegister(&m.reads, &m.restores, newImageMetrics(s))
	m.registry.MustRegister(s.opts.Collectors...)
	for _, c := range []struct {
		name, help string
		value      *atomic.Uint64
	}{
		{"read_bytes_total", "Bytes of memory asked for by READs.", &m.readBytes},
		{"read_errors_total", "READs of memory answered with an error.", &m.readErrors},
		{"opens_total", "Opens of memory files.", &m.opens},
		{"pushes_total", "Runs of pages pushed into page caches.", &m.pushes},
		{"push_bytes_total", "Bytes pushed into page caches.", &m.pushBytes},
		{"pushes_dropped_total",
			"Pushes beside or ahead of READs that found the queue full.", &m.dropped},
		{"push_errors_total", "Pushes beside or ahead of READs that failed, in part or whole.",
			&m.pushErrors},
		{"fill_bytes_total", "Bytes brought while nothing was asked for.", &m.fillBytes},
		{"fills_total", "Memory files that were filled: all of their image is there.", &m.fills},
		{"playout_restores_total", "Restores by working set that have ended.", &m.playout.restores},
		{"playout_late_pages_total",
			"Pages of working sets asked for after the open had returned and before they had come.",
			&m.playout.latePages},
		{"takeovers_total", "How often another server process has gone on with this mount.", &m.takeovers},
		{"panics_total", "Panics that were caught: each is a fault of the server.", &m.panics},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Namespace: "thaw", Subsystem: "fs", Name: c.name, Help: c.help},
			func() float64 { return float64(c.value.Load()) }))
	}
	for _, c := range []struct {
		name, help string
		nanos      *atomic.Int64
	}{
		{"playout_head_start_seconds_total", "How long opens waited for restores by working set.",
			&m.playout.head},
		{"playout_late_seconds_total", "How long READs took that asked for late pages.",
			&m.playout.late},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Namespace: "thaw", Subsystem: "fs", Name: c.name, Help: c.help},
			func() float64 { return time.Duration(c.nanos.Load()).Seconds() }))
	}
	for _, g := range []struct {
		name, help string
		value      func() float64
	}{
		{"checkpoints", "Checkpoints in the tree.",
			func() float64 { return float64(len(s.tree.entries())) }},
		{"open_memories", "Open memory files.", s.openMemories},
		{"reads_outstanding", "READs of memory not answered yet.",
			func() float64 { return float64(s.demand.outstanding.Load()) }},
		{"playout_margin_ratio", "By how much longer than measured the last restore expected its tail to take.",
			m.playout.of(func(p *Playout) float64 { return p.Margin })},
		{"playout_rate_bytes_per_second", "How fast the pages of the last restore came.",
			m.playout.of(func(p *Playout) float64 { return p.RateBytesPerSecond })},
		{"playout_planned_slack_seconds",
			"Least time before its first touch at which a piece of the last restore was expected.",
			m.playout.of(func(p *Playout) float64 { return orZero(p.PlannedSlackSeconds) })},
		{"playout_real_slack_seconds",
			"Least time before its recorded first touch at which a piece of the last restore came.",
			m.playout.of(func(p *Playout) float64 { return orZero(p.RealSlackSeconds) })},
	} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Namespace: "thaw", Subsystem: "fs", Name: g.name, Help: g.help},
			g.value))
	}
	return m
}

// openMemories counts the open memory files of the checkpoints in the tree.
func (s *Server) openMemories() float64 {
	open := 0
	for _, e := range s.tree.entries() {
		e.mu.Lock()
		open += e.opens
		e.mu.Unlock()
	}
	return float64(open)
}

// Metrics are the server's totals since the mount, for an HTTP server, say; .thaw/metrics shows the
// same.
func (s *Server) Metrics() prometheus.Gatherer { return s.metrics.registry }

// text is the content of .thaw/metrics, in Prometheus' text format.
func (m *metrics) text() ([]byte, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	var b bytes.Buffer
	enc := expfmt.NewEncoder(&b, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return nil, fmt.Errorf("metrics as text: %w", err)
		}
	}
	return b.Bytes(), nil
}

// latencyBounds are the upper bounds of the buckets of latencies.
var latencyBounds = [...]time.Duration{
	5 * time.Microsecond, 10 * time.Microsecond, 20 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond, time.Millisecond,
	5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second,
}

// latencies is a histogram that many goroutines observe without a lock; it collects itself.
type latencies struct {
	desc    *prometheus.Desc
	buckets [len(latencyBounds) + 1]atomic.Uint64 // not cumulative; the last has no bound
	sum     atomic.Int64                          // nanoseconds
}

func (l *latencies) observe(d time.Duration) {
	i := 0
	for i < len(latencyBounds) && d > latencyBounds[i] {
		i++
	}
	l.buckets[i].Add(1)
	l.sum.Add(int64(d))
}

// count is how many were observed.
func (l *latencies) count() (n uint64) {
	for i := range l.buckets {
		n += l.buckets[i].Load()
	}
	return n
}

// Describe implements prometheus.Collector.
func (l *latencies) Describe(ch chan<- *prometheus.Desc) { ch <- l.desc }

// Collect implements prometheus.Collector. The count is that of the buckets as they were read: a
// histogram whose count and last bucket differ is refused by its readers.
func (l *latencies) Collect(ch chan<- prometheus.Metric) {
	cumulative := make(map[float64]uint64, len(latencyBounds))
	var count uint64
	for i := range l.buckets {
		count += l.buckets[i].Load()
		if i < len(latencyBounds) {
			cumulative[latencyBounds[i].Seconds()] = count
		}
	}
	sum := time.Duration(l.sum.Load()).Seconds()
	ch <- prometheus.MustNewConstHistogram(l.desc, count, sum, cumulative)
}
