package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/race"
)

// TestFio lets fio write a file of blocks that carry their own checksums, imports it as an image
// and lets fio read and verify it on the mount: by mapping and by read(2), in order, at random and
// by several jobs at once.
func TestFio(t *testing.T) {
	race.SkipSlow(t)
	cli.NeedFUSE(t)
	if _, err := exec.LookPath("fio"); err != nil {
		t.Skip("needs fio (apt-get install fio)")
	}
	source := filepath.Join(t.TempDir(), "image.mem")
	common := []string{"--name=verify", "--size=64m", "--bs=4k", "--verify=crc32c",
		"--verify_fatal=1", "--verify_state_save=0", "--randrepeat=1", "--thread"}
	fio := func(args ...string) {
		t.Helper()
		out, err := cli.Tool(t, 2*time.Minute, "fio", append(common, args...)...)
		if err != nil {
			t.Fatalf("fio %v: %v\n%s", args, err, out)
		}
	}
	fio("--filename="+source, "--rw=write", "--ioengine=psync", "--do_verify=0")
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, source, "--name", "vm")
	type way struct{ policy, engine, rw string }
	var ways []way
	for _, policy := range []string{"lazy", "eager"} {
		for _, engine := range []string{"mmap", "psync"} {
			ways = append(ways, way{policy, engine, "read"}, way{policy, engine, "randread"})
		}
	}
	for _, w := range someOf(ways, 3) {
		t.Run(w.policy+"-"+w.engine+"-"+w.rw, func(t *testing.T) {
			m := cli.Mount(t, store, "--restore="+w.policy)
			read := []string{"--readonly", "--filename=" + m.Path("vm/memory"), "--rw=" + w.rw,
				"--ioengine=" + w.engine}
			fio(read...)
			fio(append(read, "--numjobs=4", "--invalidate=0")...)
			if s := m.Stats(t, "vm"); s.Errors != 0 {
				t.Errorf("errors: %v", s)
			}
		})
	}
}

// TestBench: a mounted image in every way that thaw reads it, verified against the image that was
// imported.
func TestBench(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store, "--restore=lazy")
	for _, order := range []string{"sequential", "random"} {
		for _, by := range []string{"mmap", "read"} {
			t.Run(order+"-"+by, func(t *testing.T) {
				cli.OK(t, "bench", m.Path("vm/memory"), "--against", source, "--order", order, "--by", by)
			})
		}
	}
	// A source that differs must be noticed: the verification is real.
	other := small
	other.Seed++
	r := cli.Run(t, "bench", m.Path("vm/memory"), "--against", writeImage(t, other), "--order",
		"sequential", "--by", "read")
	if r.Code == 0 {
		t.Errorf("bench verifies against another image: %v", r)
	}
}
