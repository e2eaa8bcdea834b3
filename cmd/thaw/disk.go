package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index/blob/disk"
)

// diskFlag is the flag --disk of commands that serve memory.
type diskFlag struct{ name string }

// diskHelp explains it in manuals.
const diskHelp = `--disk simulates a storage device that this host does not have: each read takes as
long as on that device, also if the data is in the host's page cache. "hdd" is one
head, 10 ms a seek, 100 MB/s; "nfs" a round trip of 0.5 ms and a link of 110 MB/s;
"s3" 20 ms a request, 16 at once, 100 MB/s; "native" is the host's own disk. (go doc
./index/blob/disk has the model.)`

func (f *diskFlag) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.name, "disk", disk.Native, "simulate a storage device: native, hdd, nfs or s3")
}

// spec is the device that the flag names.
func (f *diskFlag) spec() (disk.Spec, error) {
	s, err := disk.ParseSpec(f.name)
	if err != nil {
		return s, exitcode.With(exitcode.Usage, err)
	}
	return s, nil
}

// diskStatus is what a server says of a simulated disk.
type diskStatus struct {
	disk.Spec
	disk.Stats
}

// diskMetrics are the totals of a simulated disk, for Prometheus.
func diskMetrics(d *disk.Disk) []prometheus.Collector {
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
		{"late_total", "Reads that this host answered later than the model asks.",
			func(s disk.Stats) float64 { return float64(s.Late) }},
	} {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "thaw", Subsystem: "disk", Name: c.name, Help: c.help,
			ConstLabels: prometheus.Labels{"model": d.Spec().String()},
		}, func() float64 { return c.value(d.Stats()) }))
	}
	return all
}
