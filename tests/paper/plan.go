package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// workload is what a machine does.
type workload struct {
	name string   // of the guest program
	args []string // its options
}

// shape is the extent of a run.
type shape struct {
	memory    string
	warm      time.Duration
	workloads []workload
	disks     []string
	windows   map[string]time.Duration // by disk
	methods   []string
	drops     []float64 // percent of the set lost, for figure 8
}

// full is the paper's evaluation, and quick a trial of this command. The set of stream in it is the
// smallest that the program takes.
func full() shape {
	return shape{
		memory: "1GiB",
		warm:   10 * time.Second,
		workloads: []workload{
			{"stream", []string{"set=41MB"}},
			{"heap", []string{"set=192MiB", "cold=65536"}},
			{"idle", nil},
			{"random:20", nil}, {"random:40", nil}, {"random:60", nil}, {"random:80", nil},
		},
		disks:   []string{"native", "hdd"},
		windows: map[string]time.Duration{"native": 10 * time.Second, "hdd": 30 * time.Second},
		methods: []string{"eager", "lazy", "access", "trace", "raw-eager", "raw-lazy"},
		drops:   []float64{1, 5, 10},
	}
}

func quick() shape {
	return shape{
		memory: "64MiB",
		warm:   2 * time.Second,
		workloads: []workload{
			{"stream", []string{"set=772KiB"}},
			{"heap", []string{"set=8MiB"}},
		},
		disks:   []string{"native"},
		windows: map[string]time.Duration{"native": 3 * time.Second},
		methods: []string{"lazy", "access", "trace"},
	}
}

// job is one machine on one disk: a comparison that saves it, and further ones out of the same
// checkpoint with a part of the set lost.
type job struct {
	workload workload
	disk     string
	window   time.Duration
	memory   string
	warm     time.Duration // how long the machine works before anything is done to it
	methods  []string
	drops    []float64
}

// plan are the jobs that the options ask for.
func plan(o options) ([]job, error) {
	s := full()
	if o.quick {
		s = quick()
	}
	var names []string
	for _, w := range s.workloads {
		names = append(names, w.name)
	}
	if err := known("workload", o.workloads, names); err != nil {
		return nil, err
	}
	if err := known("disk", o.disks, s.disks); err != nil {
		return nil, err
	}
	var jobs []job
	for _, disk := range s.disks {
		for _, w := range s.workloads {
			if !chosen(o.disks, disk) || !chosen(o.workloads, w.name) {
				continue
			}
			j := job{workload: w, disk: disk, window: s.windows[disk], memory: s.memory,
				warm: s.warm, methods: s.methods}
			if w.name == "stream" {
				j.drops = s.drops
			}
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

func chosen(of []string, name string) bool { return len(of) == 0 || slices.Contains(of, name) }

func known(what string, asked, names []string) error {
	for _, a := range asked {
		if !slices.Contains(names, a) {
			return fmt.Errorf("%w: there is no %s %q; there are %s", errUsage, what, a,
				strings.Join(names, ", "))
		}
	}
	return nil
}

// name is what its files are called.
func (j job) name() string { return strings.ReplaceAll(j.workload.name, ":", "-") + "-" + j.disk }

// compare are the arguments of thaw for the comparison that saves the machine. What it makes is
// kept in a directory, if one is given. While the machine is warm, and not yet traced, thaw counts how
// much of its time is the kernel's, in hundredths of a second: so that takes seconds.
func (j job) compare(keep string) []string {
	window := j.window.String()
	args := []string{"compare", "--json", "--guest=" + j.workload.name, "--memory=" + j.memory,
		"--warm=" + j.warm.String(), "--disk=" + j.disk, "--window=" + window, "--scan=" + window,
		"--trace=" + window,
		"--methods=" + strings.Join(j.methods, ",")}
	for _, a := range j.workload.args {
		args = append(args, "--arg="+a)
	}
	if keep != "" {
		args = append(args, "--keep="+keep)
	}
	return args
}

// dropped are the arguments of thaw for the same machine with a part of its traced set lost.
func (j job) dropped(checkpoint string, percent float64) []string {
	return []string{"compare", checkpoint, "--json", "--disk=" + j.disk,
		"--window=" + j.window.String(), "--methods=trace", fmt.Sprintf("--drop=%g", percent)}
}
