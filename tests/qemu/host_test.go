package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/race"
)

func needHost(t *testing.T) Tools {
	t.Helper()
	race.SkipSlow(t)
	tools, err := FindHost()
	var missing *MissingError
	if errors.As(err, &missing) {
		t.Skip(missing)
	}
	return tools
}

// TestHost: the script has KVM with nested paging, FUSE, its files and a disk, and what it prints
// and its status come back.
func TestHost(t *testing.T) {
	tools := needHost(t)
	dir := t.TempDir()
	files := filepath.Join(dir, "files")
	if err := os.MkdirAll(filepath.Join(files, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "sub", "text"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := Host{Tools: tools, Dir: dir, Files: map[string]string{"/work": files},
		Script: `
			cat /work/sub/text /sys/module/kvm_amd/parameters/npt
			[ -c /dev/kvm ] && [ -c /dev/fuse ] && echo devices
			grep -c ' /tmp ext4 ' /proc/mounts
			echo error >&2
			exit 3`,
	}.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if want := "hello\nY\ndevices\n1\nerror"; r.Output != want || r.Status != 3 {
		t.Errorf("status %d, output %q, want 3, %q; the kernel said:\n%s", r.Status, r.Output, want, r.Console)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestHostIsStopped: one that has no end is killed in time, and what it printed is known.
func TestHostIsStopped(t *testing.T) {
	tools := needHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := Host{Tools: tools, Dir: t.TempDir(), Script: "echo begun; sleep 100000",
		Log: writerFunc(func(p []byte) (int, error) {
			if strings.Contains(string(p), "begun") {
				cancel()
			}
			return len(p), nil
		}),
	}.Run(ctx)
	if !errors.Is(err, context.Canceled) || r.Output != "begun" {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestHostPanics: a kernel that gives up ends the machine.
func TestHostPanics(t *testing.T) {
	tools := needHost(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := Host{Tools: tools, Dir: t.TempDir(), Script: "echo c >/proc/sysrq-trigger"}.Run(ctx)
	if err == nil || ctx.Err() != nil || !strings.Contains(r.Console, "Kernel panic") {
		t.Errorf("%v, %+v", err, r)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
