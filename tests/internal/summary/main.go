// Command summary turns the output of several `go test -json` runs, and of the steps around them, into
// a short report: failures with their output as they happen, one line for each package, and at the end
// the slowest tests, every skipped test with its reason and the line
//
//	N passed, N failed, N skipped
//
// It reads standard input line by line:
//
//	{...}                 an event of `go test -json` (go doc test2json)
//	#run NAME             the next events belong to this run, e.g. "race"
//	#pass NAME [REASON]   a step that is no Go test passed; likewise #fail and #skip
//	#cpu USER SYSTEM      seconds of processor time that this run has taken
//	#exit STATUS          `go test` itself has ended so
//	anything else         output of the step that follows; shown if that fails
//
// The exit status is 1 if anything failed, also where `go test` failed without saying which test
// did (a build error, a crash, a time limit), and 2 if nothing at all was run.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	s := newSummary(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 64<<10), 16<<20)
	for in.Scan() {
		s.line(in.Text())
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "summary: read standard input:", err)
		s.total.failed++
	}
	os.Exit(s.finish())
}
