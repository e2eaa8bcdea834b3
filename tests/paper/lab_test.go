package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeThaw is a command that notes its arguments and prints a recorded comparison.
func fakeThaw(t *testing.T, script string) (binary, notes string) {
	t.Helper()
	dir := t.TempDir()
	sample, err := filepath.Abs("testdata/stream.json")
	if err != nil {
		t.Fatal(err)
	}
	binary, notes = filepath.Join(dir, "thaw"), filepath.Join(dir, "notes")
	script = fmt.Sprintf("#!/bin/sh\necho \"$@\" >> %s\nsample=%s\n%s\n", notes, sample, script)
	if err := os.WriteFile(binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return binary, notes
}

func newTestLab(t *testing.T, thaw string) (l *lab, stderr *bytes.Buffer) {
	t.Helper()
	stderr = new(bytes.Buffer)
	l, err := newLab(t.Context(), options{out: filepath.Join(t.TempDir(), "out"), thaw: thaw}, stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	return l, stderr
}

// TestLab runs a job that keeps its machine, and loses parts of its set.
func TestLab(t *testing.T) {
	thaw, notes := fakeThaw(t, `for a; do case $a in --keep=*) mkdir "${a#--keep=}";; esac; done
cat "$sample"`)
	l, _ := newTestLab(t, thaw)
	jobs, err := plan(options{disks: []string{"hdd"}, workloads: []string{"stream"}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.all(t.Context(), jobs)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || len(all[0].losses) != 3 || all[0].losses[2].percent != 10 {
		t.Fatalf("%+v", all)
	}
	var out bytes.Buffer
	if err := l.finish(&out, all); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "Figure 8") {
		t.Errorf("no figure 8 in\n%s", out.String())
	}
	text, err := os.ReadFile(notes)
	if err != nil {
		t.Fatal(err)
	}
	keep := filepath.Join(l.dir, "stream-hdd")
	want := jobs[0].compare(keep)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 4 || lines[0] != strings.Join(want, " ") ||
		!strings.Contains(lines[3], keep+"/checkpoint") || !strings.Contains(lines[3], "--drop=10") {
		t.Errorf("thaw was run as\n%s", text)
	}
	if _, err := os.Stat(keep); !os.IsNotExist(err) {
		t.Errorf("the machine is still there: %v", err)
	}
	checkFiles(t, l.out, "stream-hdd.json", "stream-hdd-drop-1.json", "stream-hdd-drop-5.json",
		"stream-hdd-drop-10.json", "tables.md", "readme.md")
}

func checkFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

// TestLabFails: what thaw says is shown, and each failure is told with its reason.
func TestLabFails(t *testing.T) {
	jobs, err := plan(options{quick: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ script, want string }{
		{"case $* in *=heap*) exit 1;; esac; cat $sample", "heap on native: thaw compare"},
		{"echo no memory >&2; exit 20", "stream on native: thaw compare --json"},
		{"echo '{}'", "is not a comparison"},
		{"echo '['", "what thaw compare printed"},
	} {
		thaw, _ := fakeThaw(t, tc.script)
		l, stderr := newTestLab(t, thaw)
		all, err := l.all(t.Context(), jobs)
		if err == nil || !strings.Contains(err.Error(), tc.want) ||
			len(all) != strings.Count(tc.script, "sample") {
			t.Errorf("%s: %v, %v", tc.script, all, err)
		}
		if strings.Contains(tc.script, "memory") && !strings.Contains(stderr.String(), "no memory") {
			t.Errorf("%s: %q", tc.script, stderr)
		}
	}
}
