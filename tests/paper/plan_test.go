package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    options
		jobs []string
	}{
		{"full", options{}, []string{"stream-native", "heap-native", "idle-native",
			"random-20-native", "random-40-native", "random-60-native", "random-80-native",
			"stream-hdd", "heap-hdd", "idle-hdd", "random-20-hdd", "random-40-hdd",
			"random-60-hdd", "random-80-hdd"}},
		{"quick", options{quick: true}, []string{"stream-native", "heap-native"}},
		{"one", options{disks: []string{"hdd"}, workloads: []string{"random:40", "heap"}},
			[]string{"heap-hdd", "random-40-hdd"}},
	} {
		jobs, err := plan(tc.o)
		var names []string
		for _, j := range jobs {
			names = append(names, j.name())
			if j.window <= 0 {
				t.Errorf("%s: %s has no window", tc.name, j.name())
			}
			if want := j.workload.name == "stream" && !tc.o.quick; (len(j.drops) == 3) != want {
				t.Errorf("%s: %s loses %v", tc.name, j.name(), j.drops)
			}
		}
		if err != nil || !slices.Equal(names, tc.jobs) {
			t.Errorf("%s: %v, %v", tc.name, names, err)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, o := range []options{
		{disks: []string{"tape"}}, {workloads: []string{"random:30"}},
		{quick: true, disks: []string{"hdd"}}, {quick: true, workloads: []string{"idle"}},
	} {
		if jobs, err := plan(o); !errors.Is(err, errUsage) {
			t.Errorf("%+v: %v, %v", o, jobs, err)
		}
	}
}

func TestArguments(t *testing.T) {
	jobs, err := plan(options{disks: []string{"hdd"}, workloads: []string{"stream", "heap"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		got  []string
		want string
	}{
		{jobs[0].compare("/k"), "compare --json --guest=stream --memory=1GiB --warm=10s " +
			"--disk=hdd --window=30s --scan=30s --trace=30s " +
			"--methods=eager,lazy,access,trace,raw-eager,raw-lazy " +
			"--arg=set=41MB --keep=/k"},
		{jobs[1].compare(""), "compare --json --guest=heap --memory=1GiB --warm=10s " +
			"--disk=hdd --window=30s --scan=30s --trace=30s " +
			"--methods=eager,lazy,access,trace,raw-eager,raw-lazy " +
			"--arg=set=192MiB --arg=cold=65536"},
		{jobs[0].dropped("/k/checkpoint", 5), "compare /k/checkpoint --json --disk=hdd " +
			"--window=30s --methods=trace --drop=5"},
	} {
		if got := strings.Join(tc.got, " "); got != tc.want {
			t.Errorf("%s\nwant %s", got, tc.want)
		}
	}
}
