package vmm

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// unpacked makes a checkpoint directory of a sample.
func unpacked(t *testing.T, sample string) string {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join(sample, state.StateFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, state.StateFile), text, 0o644); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(filepath.Join(sample, state.MemoryFile+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, state.MemoryFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, z); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A machine of every version continues to run, and can be saved and restored again in the newest version.
func TestSamplesGoOn(t *testing.T) {
	needKVM(t)
	samples, err := filepath.Glob("testdata/[0-9]*.[0-9]*")
	if err != nil || len(samples) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, sample := range samples {
		t.Run(filepath.Base(sample), func(t *testing.T) {
			dir := unpacked(t, sample)
			for range 2 {
				l, err := loadDir(dir, testLog(t))
				var host *state.HostError
				if errors.As(err, &host) {
					t.Skipf("needs a host with the CPU that the sample was made on: %v", err)
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { l.Close() })
				before := l.ports.snapshot().Done
				runUntil(t, l.Machine, before+50)
				dir = checkpoint(t, l.Machine)
				l.Close()
				in, err := state.Inspect(dir)
				if err != nil || in.Version != "2.0" {
					t.Errorf("saved again: %v %+v", err, in)
				}
			}
		})
	}
}

// Features that this host lacks are named, and --force continues without them.
func TestFeaturesOfAnotherHost(t *testing.T) {
	needKVM(t)
	dir := checkpointed(t, spec("registers"), ram.MinMemory, 10)
	rewrite(t, dir, func(s *state.Machine) {
		if err := state.CheckHost(s.VCPUs); err != nil {
			t.Fatalf("its own host: %v", err)
		}
		for i := range s.VCPUs[0].CPUID {
			if e := &s.VCPUs[0].CPUID[i]; e.Function == 7 && e.Index == 0 {
				e.EDX |= 1 << 24 // amx_tile
				e.ECX |= 1 << 23 // key_locker
			}
		}
	})
	_, err := loadDir(dir, testLog(t))
	var lacks *state.HostError
	if !errors.As(err, &lacks) || !strings.Contains(err.Error(), "key_locker, amx_tile") {
		t.Fatalf("a guest with more than the host: %v", err)
	}
	l, err := load(dir, Config{Log: testLog(t), Force: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if len(l.notes) == 0 || !strings.Contains(strings.Join(l.notes, "\n"), "key_locker") {
		t.Errorf("notes: %q", l.notes)
	}
	runUntil(t, l.Machine, l.ports.snapshot().Done+10)
}
