package main

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the tables in testdata")

// TestTables: the recorded comparisons give the recorded tables.
func TestTables(t *testing.T) {
	jobs, err := plan(options{quick: true})
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []outcome
	for _, j := range jobs {
		outcomes = append(outcomes, outcome{job: j, comparison: sample(t, j.workload.name)})
	}
	trace, _ := outcomes[0].comparison.find("trace")
	outcomes[0].losses = []loss{{1, trace}, {5, trace}}
	for path, got := range map[string]string{
		"testdata/tables.md": tables(outcomes, time.Microsecond),
		"testdata/readme.md": digest(outcomes),
	} {
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// TestDigest: machines that the paper has no figures of have a row of their own table.
func TestDigest(t *testing.T) {
	idle := outcome{job: job{workload: workload{name: "idle"}, disk: "hdd"}}
	idle.comparison.Methods = []method{made("trace", 1, 0.25)}
	got := digest([]outcome{idle})
	if want := "| idle, hdd | – | – | – | 0.25 | – | – |\n"; !strings.HasSuffix(got, want) {
		t.Errorf("%s\nwant at the end %s", got, want)
	}
	if got := digest(nil); got != "" {
		t.Errorf("nothing measured: %q", got)
	}
}

// TestPublishedBeside: the published figures stand beside what was found, in the cell of their TTR.
func TestPublishedBeside(t *testing.T) {
	o := outcome{job: job{workload: workload{name: "heap"}, disk: "hdd"}}
	o.comparison.Methods = []method{made("trace", 0.999, 1.5)}
	for _, c := range []struct {
		rows [][]string
		want string
	}{
		{o.restores(), "trace; 0 (47,082); – (47,082); – (47); 99.9 % (99.9 %); 99.9 % (100 %); –; –"},
		{o.times(), "trace; 0; 0 (9.8); 1.5; 1.5; 0; 0; – (9)"},
		{o.sensitivity(), "0 %; 0; –; –; 0; 1.5; 1.5; 0; 0; –"},
	} {
		if got := strings.Join(c.rows[1], "; "); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
		for _, row := range c.rows {
			if len(row) != len(c.rows[0]) {
				t.Errorf("%d cells, want %d: %v", len(row), len(c.rows[0]), row)
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	got := markdown([][]string{{"a", "b"}, {"1", "2"}})
	if want := "| a | b |\n|---|--:|\n| 1 | 2 |\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
