package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStatus(t *testing.T) {
	missing := usableKVM(filepath.Join(t.TempDir(), "kvm"))
	if missing == nil || !strings.Contains(missing.Error(), "no such file") {
		t.Errorf("a missing device: %v", missing)
	}
	for _, tc := range []struct {
		err  error
		want int
	}{{nil, 0}, {flag.ErrHelp, 0}, {missing, 22}, {errUsage, 4}, {errors.New("other"), 1}} {
		if got := status(tc.err); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"--quick", "--disk", "native,hdd", "--workload=heap", "--out=o",
		"--thaw=t"}, io.Discard)
	if err != nil || !o.quick || strings.Join(o.disks, " ") != "native hdd" ||
		strings.Join(o.workloads, " ") != "heap" || o.out != "o" || o.thaw != "t" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range [][]string{{"--fast"}, {"stream"}} {
		if _, err := parse(bad, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestMinorFault(t *testing.T) {
	dir := t.TempDir()
	d, err := minorFault(dir)
	if err != nil || d <= 0 {
		t.Errorf("%v, %v", d, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestQuick runs the trial end to end, as a user would; with -short one of its workloads.
func TestQuick(t *testing.T) {
	if err := usableKVM("/dev/kvm"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	var out, errs bytes.Buffer
	args := []string{"--quick", "--out", dir}
	workloads := []string{"stream", "heap"}
	if testing.Short() {
		n := rand.IntN(len(workloads)) // another one in each run
		workloads = workloads[n : n+1]
		args = append(args, "--workload", workloads[0])
	}
	if thaw := os.Getenv("THAW_TEST_BINARY"); thaw != "" { // it is built already
		args = append(args, "--thaw", thaw)
	}
	if err := run(t.Context(), args, &out, &errs); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	wanted := []string{"| trace |", "### Targets"}
	for _, w := range workloads {
		wanted = append(wanted, "### "+w+" on native")
	}
	for _, want := range wanted {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, w := range workloads {
		name := w + "-native.json"
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseComparison(text)
		if err != nil || len(c.Methods) != 3 || c.Checkpoint.Scan == nil ||
			c.Checkpoint.Trace == nil {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "tables.md")); err != nil ||
		string(text) != out.String() {
		t.Errorf("tables.md: %v", err)
	}
}
