package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// The server dies while the bench reads: an error that says so, at once; no hang, no crash.
func TestBenchServerDies(t *testing.T) {
	for _, engine := range []string{"mmap", "psync"} {
		t.Run(engine, func(t *testing.T) {
			s := &script{t: t, dir: t.TempDir()}
			t.Cleanup(s.unmountAll)
			s.needs("fuse")
			// Nothing but holes, but each page must be asked for: more than can be read meanwhile.
			if err := os.WriteFile(s.path("mem"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(s.path("mem"), 8<<30); err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{
				"thaw import st mem", "mkdir mnt", "thaw mount st mnt --daemon --restore=lazy",
			} {
				if err := s.line(line); err != nil {
					t.Fatalf("%s: %v\n%s", line, err, s.stderr)
				}
			}
			bench := exec.CommandContext(t.Context(), "/proc/self/exe", "bench", "mnt/mem/memory",
				"--rw=randread", "--ioengine="+engine, "--numjobs=4", "--runtime=1h", "--time-based")
			bench.Dir, bench.Env = s.dir, append(os.Environ(), asCommand+"=1")
			var stderr bytes.Buffer
			bench.Stderr = &stderr
			if err := bench.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- bench.Wait() }()
			waitForReads(t, s.path("mnt/mem/stats.json"), ended)
			if err := s.kill("mnt"); err != nil {
				t.Error(err)
			}
			select {
			case <-ended:
			case <-time.After(scriptTimeout):
				bench.Process.Kill()
				t.Fatal("the bench hangs")
			}
			code := exitcode.Code(bench.ProcessState.ExitCode())
			if code != exitcode.ServerGone || !strings.Contains(stderr.String(), "at offset") {
				t.Errorf("status %d\n%s", code, stderr.String())
			}
			if err := s.line("thaw umount mnt"); err != nil {
				t.Error(err)
			}
		})
	}
}

// waitForReads returns when the server has answered some demand reads.
func waitForReads(t *testing.T, stats string, ended <-chan error) {
	t.Helper()
	for end := time.Now().Add(scriptTimeout); ; {
		text, err := os.ReadFile(stats)
		if err != nil {
			t.Fatal(err)
		}
		var st struct {
			Lazy uint64 `json:"lazy_pages"`
		}
		if err := json.Unmarshal(text, &st); err != nil {
			t.Fatalf("%s: %v", filepath.Base(stats), err)
		}
		if st.Lazy > 100 {
			return
		}
		select {
		case err := <-ended:
			t.Fatal("the bench ended: ", err)
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatal("the bench does not read")
		}
	}
}

func TestSecondsFlag(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"10": 10 * time.Second, "0.25": 250 * time.Millisecond, "90s": 90 * time.Second,
	} {
		var f secondsFlag
		if err := f.Set(in); err != nil || time.Duration(f) != want {
			t.Errorf("%s: %v %v", in, time.Duration(f), err)
		}
	}
	for _, in := range []string{"", "soon", "NaN", "1e300", "10 s"} {
		if err := new(secondsFlag).Set(in); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestMicros(t *testing.T) {
	for d, want := range map[time.Duration]string{
		410: "0.41 us", 23_500: "23.5 us", 1_204_900: "1,204 us", 0: "0.00 us",
	} {
		if got := micros(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

func TestSpark(t *testing.T) {
	if got := spark([]float64{0, 0.01, 0.5, 1}); got != " ▁▅█" {
		t.Errorf("%q", got)
	}
	if got := spark([]float64{0, 0}); got != "  " {
		t.Errorf("%q", got)
	}
}
