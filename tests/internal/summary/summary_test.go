package main

import (
	"strings"
	"testing"
)

// feed returns lines to a new summary and returns what it printed and its exit status.
func feed(lines ...string) (string, int) {
	var out strings.Builder
	s := newSummary(&out)
	for _, l := range lines {
		s.line(l)
	}
	status := s.finish()
	return out.String(), status
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return lines[len(lines)-1]
}

func TestSummary(t *testing.T) {
	const pkg = `"Package":"github.com/thawfs/thaw/fs"`
	tests := []struct {
		name   string
		lines  []string
		last   string
		status int
		shows  []string
	}{
		{"nothing", nil, "0 passed, 0 failed, 0 skipped", 2, nil},
		{"steps", []string{"noise", "#pass gofmt", "a.go", "#fail vet bad", "#skip lint not there"},
			"1 passed, 1 failed, 1 skipped", 1, []string{"a.go\nbad", "lint: not there"}},
		{"tests", []string{
			"#run race",
			`{"Action":"run",` + pkg + `,"Test":"TestA"}`,
			`{"Action":"pass",` + pkg + `,"Test":"TestA"}`,
			`{"Action":"output",` + pkg + `,"Test":"TestB","Output":"=== RUN   TestB\n"}`,
			`{"Action":"output",` + pkg + `,"Test":"TestB","Output":"    b_test.go:7: needs /dev/kvm: x\n"}`,
			`{"Action":"output",` + pkg + `,"Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}`,
			`{"Action":"skip",` + pkg + `,"Test":"TestB"}`,
			`{"Action":"pass",` + pkg + `,"Elapsed":1.5}`,
			"#exit 0",
		}, "1 passed, 0 failed, 1 skipped", 0, []string{"race: fs TestB: needs /dev/kvm: x"}},
		{"slow tests", []string{
			"#run race",
			`{"Action":"pass",` + pkg + `,"Test":"TestQuick","Elapsed":4.9}`,
			`{"Action":"pass",` + pkg + `,"Test":"TestLong","Elapsed":7.25}`,
			`{"Action":"pass",` + pkg + `,"Test":"TestLonger/part","Elapsed":9}`,
			`{"Action":"pass",` + pkg + `,"Test":"TestLonger","Elapsed":11}`,
			"#cpu 12.5 3.25",
			"#exit 0",
		}, "4 passed, 0 failed, 0 skipped", 0, []string{"race: 12.5 s of processor time in user space, 3.25 s",
			"slowest:\n     11.0 s  race: fs TestLonger\n      7.2 s  race: fs TestLong\n"}},
		{"failed test shows its output", []string{
			`{"Action":"output",` + pkg + `,"Test":"TestA","Output":"    a_test.go:1: got 2\n"}`,
			`{"Action":"fail",` + pkg + `,"Test":"TestA"}`,
			`{"Action":"fail",` + pkg + `}`,
			"#exit 1",
		}, "0 passed, 1 failed, 0 skipped", 1, []string{"got 2", "fs TestA"}},
		{"build failure", []string{
			`{"ImportPath":"x [x.test]","Action":"build-output","Output":"x.go:1: no\n"}`,
			`{"ImportPath":"x [x.test]","Action":"build-fail"}`,
			`{"Action":"fail","Package":"x","FailedBuild":"x [x.test]"}`,
			"#exit 1",
		}, "0 passed, 1 failed, 0 skipped", 1, []string{"x.go:1: no"}},
		{"crash shows the test that ran", []string{
			`{"Action":"pass",` + pkg + `,"Test":"TestA"}`,
			`{"Action":"output",` + pkg + `,"Test":"TestB","Output":"panic: test timed out\n"}`,
			`{"Action":"fail",` + pkg + `}`,
			"#exit 1",
		}, "1 passed, 1 failed, 0 skipped", 1, []string{"panic: test timed out"}},
		{"go test died alone", []string{"#run race", "#exit 137"},
			"0 passed, 1 failed, 0 skipped", 1, []string{"status 137"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, status := feed(tt.lines...)
			if got := lastLine(out); got != tt.last || status != tt.status {
				t.Errorf("got %q and status %d, want %q and %d", got, status, tt.last, tt.status)
			}
			for _, want := range tt.shows {
				if !strings.Contains(out, want) {
					t.Errorf("output lacks %q:\n%s", want, out)
				}
			}
		})
	}
}
