package fs

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// What the handlers counted is what a scraper reads, by names as Prometheus wants them.
func TestMetrics(t *testing.T) {
	s := testServer(newFakeStore(spec{Name: "a", Pages: 10}, spec{Name: "b", Pages: 10}))
	defer s.close()
	s.metrics.opens.Add(3)
	s.metrics.pushBytes.Add(1 << 20)
	s.demand.outstanding.Add(2)
	defer s.demand.outstanding.Add(-2)
	for _, d := range []time.Duration{4 * time.Microsecond, 5 * time.Microsecond, 6 * time.Microsecond,
		time.Second, time.Minute} {
		s.metrics.reads.observe(d)
	}
	text, err := s.metrics.text()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.New(bytes.NewReader(text)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	got := map[string]float64{}
	for name, f := range families {
		switch m := f.GetMetric()[0]; {
		case m.GetCounter() != nil:
			got[name] = m.GetCounter().GetValue()
		case m.GetGauge() != nil:
			got[name] = m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"thaw_fs_checkpoints": 2, "thaw_fs_open_memories": 0, "thaw_fs_reads_outstanding": 2,
		"thaw_fs_opens_total": 3, "thaw_fs_push_bytes_total": 1 << 20, "thaw_fs_pushes_total": 0,
		"thaw_fs_pushes_dropped_total": 0, "thaw_fs_read_bytes_total": 0,
		"thaw_fs_read_errors_total": 0, "thaw_fs_panics_total": 0,
		"thaw_fs_push_errors_total": 0, "thaw_fs_fill_bytes_total": 0, "thaw_fs_fills_total": 0,
		"thaw_fs_playout_restores_total": 0, "thaw_fs_playout_late_pages_total": 0,
		"thaw_fs_playout_late_seconds_total": 0, "thaw_fs_playout_head_start_seconds_total": 0,
		"thaw_fs_playout_margin_ratio": 0, "thaw_fs_playout_rate_bytes_per_second": 0,
		"thaw_fs_playout_planned_slack_seconds": 0, "thaw_fs_playout_real_slack_seconds": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counters and gauges (-want +got):\n%s", diff)
	}

	h := families["thaw_fs_read_duration_seconds"].GetMetric()[0].GetHistogram()
	buckets := map[float64]uint64{}
	for _, b := range h.GetBucket() {
		buckets[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	for bound, n := range map[float64]uint64{5e-6: 2, 1e-5: 3, 0.1: 3, 1: 4, math.Inf(1): 5} {
		if buckets[bound] != n {
			t.Errorf("bucket %g has %d, want %d", bound, buckets[bound], n)
		}
	}
	if h.GetSampleCount() != 5 || math.Abs(h.GetSampleSum()-61.000015) > 1e-9 {
		t.Errorf("%d in %g s", h.GetSampleCount(), h.GetSampleSum())
	}
}

// Counting costs a READ no memory.
func TestMetricsDoNotAllocate(t *testing.T) {
	s := testServer(newFakeStore())
	defer s.close()
	if n := testing.AllocsPerRun(100, func() {
		s.metrics.reads.observe(time.Millisecond)
		s.metrics.readBytes.Add(PageSize)
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}
