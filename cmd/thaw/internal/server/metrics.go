package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/thawfs/thaw/index/blob/disk"
)

// DiskMetrics are the totals of a simulated disk, for Prometheus.
func DiskMetrics(d *disk.Disk) []prometheus.Collector {
	var all []prometheus.Collector
	for _, c := range []struct {
		name, help string
		value      func(disk.Stats) float64
	}{
		{"requests_total", "Reads of the simulated disk.",
			func(s disk.Stats) float64 { return float64(s.Requests) }},
		{"seeks_total", "Those that did not follow the one before.",
			func(s disk.Stats) float64 { return float64(s.Seeks) }},
		{"read_bytes_total", "Bytes read from it.",
			func(s disk.Stats) float64 { return float64(s.Bytes) }},
		{"wait_seconds_total", "Sum of the times that reads took, queueing included.",
			func(s disk.Stats) float64 { return s.Waited.Seconds() }},
		{"late_requests_total", "Reads that this host answered later than the model asks.",
			func(s disk.Stats) float64 { return float64(s.Late) }},
	} {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "thaw", Subsystem: "disk", Name: c.name, Help: c.help,
			ConstLabels: prometheus.Labels{"model": d.Spec().String()},
		}, func() float64 { return c.value(d.Stats()) }))
	}
	return all
}

// buildMetric tells by its label which program serves.
func buildMetric(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "thaw", Name: "build_info", Help: "1; the label tells the version of the program.",
		ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 })
}
