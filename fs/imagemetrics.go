package fs

import (
	"github.com/prometheus/client_golang/prometheus"
)

// imageMetrics are the counters of each checkpoint that was opened since the mount, with those of its
// clones: what its stats.json shows. They begin at 0 again when it becomes cold, as those of a process do
// that is started again. A checkpoint that was never opened has none, so that a store of thousands of them
// costs a scrape little.
type imageMetrics struct {
	s     *Server
	descs []*prometheus.Desc
}

// imageCounter is one of them.
type imageCounter struct {
	name, help string
	gauge      bool
	value      func(*Stats) float64
}

func imageCounters() []imageCounter {
	return []imageCounter{
		{"opens_total", "Opens of its memory files.", false,
			func(st *Stats) float64 { return float64(st.Opens) }},
		{"prefetched_pages_total", "Pages that restores brought.", false,
			func(st *Stats) float64 { return float64(st.PrefetchedPages) }},
		{"prefetch_wait_seconds_total", "How long opens waited for restores.", false,
			func(st *Stats) float64 { return st.PrefetchSeconds }},
		{"prefetches_total", "Restores that brought pages.", false,
			func(st *Stats) float64 { return float64(st.Prefetches) }},
		{"prefetch_failures_total", "Restores that gave up on an error; pages come on demand then.", false,
			func(st *Stats) float64 { return float64(st.FailedPrefetches) }},
		{"evicted_pages_total", "Pages that were read again after they had left the page cache.", false,
			func(st *Stats) float64 { return float64(st.EvictedPages) }},
		{"lazy_pages_total", "Pages that were read on demand.", false,
			func(st *Stats) float64 { return float64(st.LazyPages) }},
		{"lazy_requests_total", "READs that asked for them.", false,
			func(st *Stats) float64 { return float64(st.LazyRequests) }},
		{"pushed_pages_total", "Pages brought beside or ahead of demand.", false,
			func(st *Stats) float64 { return float64(st.PushedPages) }},
		{"stall_seconds_total", "Time in which at least one READ was outstanding.", false,
			func(st *Stats) float64 { return st.StallSeconds }},
		{"errors_total", "READs answered with an error.", false,
			func(st *Stats) float64 { return float64(st.Errors) }},
		{"open_files", "Memory files that are open.", true,
			func(st *Stats) float64 { return float64(st.Open) }},
		{"longest_stall_seconds", "The longest wait since it was cold.", true,
			func(st *Stats) float64 { return st.Stalls.Longest.Seconds() }},
	}
}

func newImageMetrics(s *Server) *imageMetrics {
	m := &imageMetrics{s: s}
	for _, c := range imageCounters() {
		m.descs = append(m.descs, prometheus.NewDesc("thaw_fs_checkpoint_"+c.name, c.help,
			[]string{"checkpoint"}, nil))
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *imageMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *imageMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, e := range m.s.tree.entries() {
		st := m.s.stats(e, "")
		if st.Opens == 0 && st.Open == 0 {
			continue
		}
		for i, c := range imageCounters() {
			kind := prometheus.CounterValue
			if c.gauge {
				kind = prometheus.GaugeValue
			}
			ch <- prometheus.MustNewConstMetric(m.descs[i], kind, c.value(&st), e.name)
		}
	}
}
