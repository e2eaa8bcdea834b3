package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"
)

// event is what `go test -json` writes; build events have ImportPath instead of Package.
type event struct {
	Action, Package, ImportPath, Test, Output, FailedBuild string
	Elapsed                                                float64 // seconds
}

type counts struct{ passed, failed, skipped int }

// note is one skipped or failed test with what it said.
type note struct{ run, name, reason string }

// took is how long one test took: by the clock, beside all that ran at the same time.
type took struct {
	run, name string
	seconds   float64
}

// summary is the state between two lines.
type summary struct {
	out          io.Writer
	run          string
	total        counts
	perPackage   map[string]*counts  // of the present run
	output       map[string][]string // by package and test, while it runs
	builds       map[string][]string // compiler output by import path
	failedInRun  int
	step         []string // lines since the last step
	skips, fails []note
	slow         []took // top-level tests that took that long
	started      time.Time
}

func newSummary(out io.Writer) *summary {
	s := &summary{out: out, started: time.Now(), builds: map[string][]string{}}
	s.begin("")
	return s
}

func (s *summary) begin(run string) {
	s.run, s.failedInRun = run, 0
	s.perPackage, s.output = map[string]*counts{}, map[string][]string{}
	if run != "" {
		fmt.Fprintf(s.out, "== %s (at %v)\n", run, time.Since(s.started).Round(time.Second))
	}
}

// line takes one line of input.
func (s *summary) line(text string) {
	if strings.HasPrefix(text, "{") {
		var e event
		if err := json.Unmarshal([]byte(text), &e); err == nil && e.Action != "" {
			s.event(e)
			return
		}
	}
	word, rest, _ := strings.Cut(text, " ")
	name, reason, _ := strings.Cut(rest, " ")
	switch word {
	case "#run":
		s.begin(rest)
	case "#pass":
		s.total.passed++
		fmt.Fprintf(s.out, "ok    %s %s\n", name, reason)
		s.step = nil
	case "#fail":
		s.fail(name, strings.Join(append(s.step, reason), "\n"))
		s.step = nil
	case "#skip":
		s.skip(name, reason)
		s.step = nil
	case "#cpu":
		fmt.Fprintf(s.out, "      %s: %s s of processor time in user space, %s s in the kernel\n",
			s.run, name, reason)
	case "#exit":
		status, err := strconv.Atoi(name)
		if (err != nil || status != 0) && s.failedInRun == 0 {
			s.fail("go-test", "go test ended with status "+name+" and named no failed test\n"+
				strings.Join(s.step, "\n"))
		}
		s.step, s.run = nil, ""
	default:
		s.step = append(s.step, text)
	}
}

func (s *summary) fail(name, output string) {
	s.total.failed++
	s.failedInRun++
	s.fails = append(s.fails, note{s.run, name, ""})
	fmt.Fprintf(s.out, "FAIL  %s\n%s\n", name, strings.TrimRight(output, "\n"))
}

func (s *summary) skip(name, reason string) {
	s.total.skipped++
	s.skips = append(s.skips, note{s.run, name, reason})
}

func (s *summary) event(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		s.builds[e.ImportPath] = append(s.builds[e.ImportPath], e.Output)
		return
	case "output":
		s.output[key] = append(s.output[key], e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	output := s.output[key]
	delete(s.output, key)
	if e.Test == "" {
		s.packageEnd(e, output)
		return
	}
	c := s.pkg(e.Package)
	name := short(e.Package) + " " + e.Test
	if e.Elapsed >= slow && !strings.Contains(e.Test, "/") {
		s.slow = append(s.slow, took{s.run, name, e.Elapsed})
	}
	switch e.Action {
	case "pass":
		c.passed++
		s.total.passed++
	case "skip":
		c.skipped++
		s.skip(name, skipReason(output))
	case "fail":
		c.failed++
		s.fail(name, strings.Join(output, ""))
	}
}

func (s *summary) pkg(name string) *counts {
	c := s.perPackage[name]
	if c == nil {
		c = &counts{}
		s.perPackage[name] = c
	}
	return c
}

// packageEnd prints the package's line. A package that failed without a failed test did not
// build, crashed or ran out of time: that counts as one failure.
func (s *summary) packageEnd(e event, output []string) {
	c := s.pkg(e.Package)
	if e.Action == "fail" && c.failed == 0 {
		text := strings.Join(append(s.builds[e.FailedBuild], output...), "")
		// A crash leaves tests that never ended: what they printed tells where it was.
		for key, lines := range s.output {
			if strings.HasPrefix(key, e.Package+" ") {
				text += strings.Join(lines, "")
			}
		}
		s.fail(short(e.Package), text)
		return
	}
	if c.passed+c.failed+c.skipped == 0 {
		return // no test files
	}
	fmt.Fprintf(s.out, "%-5s %-28s %4d passed %3d failed %3d skipped %7.1f s\n",
		map[bool]string{true: "ok", false: "FAIL"}[e.Action != "fail"], short(e.Package),
		c.passed, c.failed, c.skipped, e.Elapsed)
}

// short drops the module's name.
func short(pkg string) string {
	return strings.TrimPrefix(strings.TrimPrefix(pkg, "github.com/thawfs/thaw"), "/")
}

// skipReason finds the text of t.Skip in a test's output: lines like `    file.go:12: needs x`.
func skipReason(output []string) string {
	var reason []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok {
				line = text
			}
		}
		reason = append(reason, line)
	}
	if len(reason) == 0 {
		return "no reason given"
	}
	return strings.Join(reason, "; ")
}

// finish prints slow tests, skips, failures and the last line; it gives the exit status.
func (s *summary) finish() int {
	s.printSlow()
	s.printNotes("skipped", s.skips)
	s.printNotes("failed", s.fails)
	fmt.Fprintf(s.out, "%v in all\n", time.Since(s.started).Round(time.Second))
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n",
		s.total.passed, s.total.failed, s.total.skipped)
	switch {
	case s.total.failed > 0:
		return 1
	case s.total.passed == 0:
		return 2
	}
	return 0
}

// slow is how many seconds a test takes that is listed, and mostSlow how many are listed.
const slow, mostSlow = 5, 20

func (s *summary) printSlow() {
	if len(s.slow) == 0 {
		return
	}
	sort.SliceStable(s.slow, func(i, j int) bool { return s.slow[i].seconds > s.slow[j].seconds })
	fmt.Fprintln(s.out, "-- slowest:")
	for _, t := range s.slow[:min(len(s.slow), mostSlow)] {
		fmt.Fprintf(s.out, "   %6.1f s  %s: %s\n", t.seconds, t.run, t.name)
	}
}

func (s *summary) printNotes(title string, notes []note) {
	if len(notes) == 0 {
		return
	}
	sort.SliceStable(notes, func(i, j int) bool { return notes[i].run < notes[j].run })
	fmt.Fprintf(s.out, "-- %s:\n", title)
	for _, n := range notes {
		line := n.name
		if n.run != "" {
			line = n.run + ": " + line
		}
		if n.reason != "" {
			line += ": " + n.reason
		}
		fmt.Fprintln(s.out, "  ", line)
	}
}
