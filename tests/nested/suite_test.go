package nested

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/race"
	"github.com/thawfs/thaw/tests/qemu"
)

const module = "github.com/thawfs/thaw/"

// suite is tests of one package, run on a host of their own.
type suite struct {
	pkg       string            // below the module
	run, skip string            // as for go test; empty = all, none
	memory    int64             // of the host; 0 = its default
	files     map[string]string // more files, as in qemu.Host
	needsThaw bool
}

// limit is for one suite, on a host that has other things to do as well.
const limit = 18 * time.Minute

// nested runs a suite and reports each of its tests as a subtest.
func nested(t *testing.T, s suite) {
	t.Helper()
	race.SkipSlow(t)
	if testing.Short() {
		t.Skip("takes a minute or two: left to the run without -short")
	}
	tools, err := qemu.FindHost()
	var missing *qemu.MissingError
	if errors.As(err, &missing) {
		t.Skip(missing)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "binary")
	build(t, "test", "-c", "-o", binary, module+s.pkg)
	files := map[string]string{"/work/binary": binary}
	if s.needsThaw {
		files["/bin/thaw"] = filepath.Join(dir, "thaw")
		build(t, "build", "-o", files["/bin/thaw"], module+"cmd/thaw")
	}
	if data := filepath.Join("../..", s.pkg, "testdata"); exists(data) {
		files["/work/testdata"] = data
	}
	for name, path := range s.files {
		files[name] = path
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	h := qemu.Host{Tools: tools, Dir: dir, MemoryBytes: s.memory, Files: files, Log: io.Discard,
		Script: fmt.Sprintf("cd /work && THAW_TEST_BINARY=/bin/thaw THAW_TEST_OWN_HOST=1 ./binary "+
			"-test.v=test2json -test.timeout=%v -test.run='%s' -test.skip='%s'", limit-15*time.Second, s.run,
			cmp.Or(s.skip, "^$"))}
	if testing.Verbose() {
		h.Log = os.Stderr
	}
	r, err := h.Run(ctx)
	report(t, r)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != 0 && !t.Failed() {
		t.Errorf("status %d, and no test failed:\n%s", r.Status, r.Output)
	}
	if t.Failed() {
		t.Logf("the kernel of the host said:\n%s", r.Console)
	}
}

// build runs the go command for a host without libraries.
func build(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{args[0], "-trimpath", "-ldflags=-s -w"}, args[1:]...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// outcome of one test with its subtests.
type outcome struct {
	name, action string // pass, fail, skip; empty if it did not end
	output       string
}

// report makes a subtest of each test that ran.
func report(t *testing.T, r qemu.HostResult) {
	t.Helper()
	list, err := outcomes(t.Context(), r.Output)
	if err != nil {
		t.Error(err)
	}
	if len(list) == 0 {
		t.Errorf("no test ran:\n%s", r.Output)
	}
	for _, o := range list {
		t.Run(o.name, func(t *testing.T) {
			switch o.action {
			case "pass":
			case "skip":
				t.Skip(strings.TrimSpace(o.output))
			case "":
				t.Errorf("did not end:\n%s", o.output)
			default:
				t.Error(o.output)
			}
		})
	}
}

// outcomes reads what a test binary printed, with the help of go tool test2json.
func outcomes(ctx context.Context, text string) ([]*outcome, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json")
	cmd.Stdin = strings.NewReader(text + "\n")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool test2json: %w", err)
	}
	var list []*outcome
	byName := map[string]*outcome{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var e struct{ Action, Test, Output string }
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return list, fmt.Errorf("go tool test2json: %w", err)
		}
		top, sub, _ := strings.Cut(e.Test, "/")
		if top == "" {
			continue
		}
		o := byName[top]
		if o == nil {
			o = &outcome{name: top}
			byName[top] = o
			list = append(list, o)
		}
		switch {
		case e.Action == "output" && !strings.HasPrefix(e.Output, "==="):
			o.output += e.Output
		case sub == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip"):
			o.action = e.Action
		}
	}
}
