package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/tests/internal/race"
	"github.com/thawfs/thaw/tests/qemu"
)

// restorerRun runs the restorer on a directory of a mount, compares what it makes with a memory, and gives
// how many bytes it read.
func restorerRun(t *testing.T, how, dir, memory string) (read int64) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "guest")
	text, err := cli.Tool(t, time.Minute, "env", restorerEnv+"="+how, self, dir, out)
	if err != nil {
		t.Fatalf("%s: %v\n%s", how, err, text)
	}
	if _, err := fmt.Sscan(text, &read); err != nil {
		t.Fatal(err)
	}
	sameFile(t, out, memory)
	return read
}

// snapshotImage is the memory of the tests' snapshots: 32 MiB, half of it zero.
var snapshotImage = image.Spec{Pages: 8192, Seed: 31}

// dataBytes are the bytes of an image's pages that are not zero.
func dataBytes(s image.Spec) (n int64) {
	for gfn := range s.Pages {
		if s.Kind(gfn) != image.Zero {
			n += image.PageSize
		}
	}
	return n
}

// TestFirecrackerNames: the mount has a snapshot of Firecracker under its own names, and a reader that does
// what Firecracker's source does finds all of its memory there; opening it by that name prefetches.
func TestFirecrackerNames(t *testing.T) {
	cli.NeedFUSE(t)
	ram := writeImage(t, snapshotImage)
	dir := t.TempDir()
	if out, err := cli.Tool(t, time.Minute, "cp", ram, filepath.Join(dir, "vm.memory")); err != nil {
		t.Fatal(out, err)
	}
	le := binary.LittleEndian
	state := append(le.AppendUint64(le.AppendUint64(nil, 0x0710_1984_8664_0000), 5), "8.0.0"...)
	state = append(le.AppendUint64(state, 32), "the state of the machine"...)
	state = le.AppendUint64(state, ^crc64.Update(^uint64(0), crc64.MakeTable(0x95AC9329AC4BC9B5), state))
	if err := os.WriteFile(filepath.Join(dir, "snapshot"), state, 0o600); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, dir, "--memory", filepath.Join(dir, "vm.memory"), "--name", "fc")
	m := cli.Mount(t, store, "--restore=eager")
	restorerRun(t, "firecracker", m.Path("fc"), ram)
	if st := m.Stats(t, "fc"); st.PrefetchedPages != snapshotImage.Pages {
		t.Errorf("opening mem did not prefetch: %v", st)
	}
	restorerRun(t, "firecracker", m.Path("fc/clones/one"), ram)
	sameFile(t, m.Path("fc/vmstate"), filepath.Join(dir, "snapshot"))
	out := cli.OK(t, "inspect", store, "fc").Stdout
	for _, want := range []string{
		`"snapshot_path":"` + m.Path("fc/vmstate"), `"backend_path":"` + m.Path("fc/mem"),
		`"track_dirty_pages":true`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("inspect does not say %s:\n%s", want, out)
		}
	}
	m.Unmount()
}

// TestCloudHypervisorNames: a snapshot of Cloud Hypervisor, restored in each mode by a reader that does what
// its source does. Copying reads only what is not zero.
func TestCloudHypervisorNames(t *testing.T) {
	cli.NeedFUSE(t)
	ram := writeImage(t, snapshotImage)
	dir := t.TempDir()
	if out, err := cli.Tool(t, time.Minute, "cp", ram, filepath.Join(dir, "memory-ranges")); err != nil {
		t.Fatal(out, err)
	}
	const state = `{"snapshots":{"memory-manager":{"snapshot_data":{"state":"{\"memory_ranges\":{\"data\":[` +
		`{\"gpa\":0,\"length\":20971520},{\"gpa\":4294967296,\"length\":12582912}]}}"}}}}`
	for name, text := range map[string]string{"state.json": state, "config.json": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, dir, "--name", "ch")
	m := cli.Mount(t, store)
	for _, mode := range []string{"copy", "ondemand", "copyonwrite"} {
		read := restorerRun(t, "cloud-hypervisor "+mode, m.Path("ch"), ram)
		if mode == "copy" && read != dataBytes(snapshotImage) {
			t.Errorf("it read %d bytes, want those of the %d that are not zero", read, dataBytes(snapshotImage))
		}
	}
	// Programs that know of holes copy them as holes.
	copied := filepath.Join(t.TempDir(), "copy")
	if out, err := cli.Tool(t, time.Minute, "cp", m.Path("ch/memory-ranges"), copied); err != nil {
		t.Fatal(out, err)
	}
	sameFile(t, copied, ram)
	if got := roomOf(t, copied); got > dataBytes(snapshotImage)+1<<20 {
		t.Errorf("a copy by cp takes %d bytes", got)
	}
	tarred := filepath.Join(t.TempDir(), "tar")
	if out, err := cli.Tool(t, time.Minute, "tar", "-C", m.Path("ch"), "-S", "-cf", tarred, "memory",
		"memory-ranges"); err != nil {
		t.Fatal(out, err)
	}
	if st, err := os.Stat(tarred); err != nil || st.Size() > dataBytes(snapshotImage)+1<<20 {
		t.Errorf("tar writes holes, or memory twice: %d bytes, %v", st.Size(), err)
	}
	m.Unmount()
}

// roomOf is how many bytes a file takes on its disk.
func roomOf(t *testing.T, path string) (n int64) {
	t.Helper()
	text, err := cli.Tool(t, cliLimit, "stat", "-c", "%b", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n * 512
}

// TestQEMUStreamFromMount: a Linux guest that was saved as a migration stream with all of its memory goes on
// from the stream that the mount has of it, by the machine's own command line.
func TestQEMUStreamFromMount(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest of its own: not with -short")
	}
	cli.NeedFUSE(t)
	race.SkipSlow(t)
	if _, err := qemu.Find(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // of a busy host
	defer cancel()
	dir := t.TempDir()
	c := qemu.Config{Dir: dir, MemoryBytes: 256 << 20, PayloadBytes: 24 << 20}
	g, err := qemu.Boot(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	saved, err := g.Console.WaitTicks(ctx, 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	stream := filepath.Join(dir, "stream")
	if err := g.QMP.Run(ctx, "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := g.MigrateTo(ctx, "exec:cat > "+stream); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	importOf(t, store, stream, "linux", "")
	m := cli.Mount(t, store)
	again, err := qemu.FromStream(ctx, c, m.Path("linux/migration-stream"))
	if err != nil {
		t.Fatalf("%v\n%s", err, m.Log())
	}
	defer again.Close()
	r := &restored{Guest: again}
	if err := again.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	r.goesOn(t, saved, 3)
	r.allRight(t)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	m.Unmount()
}

// TestLibvirtFromMount: a machine that "virsh save" saved, in a format that compresses, is restored by "virsh
// restore" from the file that the mount has of it, has the memory that it had, and goes on.
func TestLibvirtFromMount(t *testing.T) {
	if testing.Short() {
		t.Skip("starts libvirtd: not with -short")
	}
	cli.NeedFUSE(t)
	needLibvirt(t)
	dir, err := os.MkdirTemp("/tmp", "thaw-libvirt") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, format := range []string{"raw", "gzip"} {
		t.Run(format, func(t *testing.T) {
			out := filepath.Join(dir, format)
			saveByLibvirt(t, out, format)
			store := filepath.Join(out, "store")
			importOf(t, store, filepath.Join(out, "save"), "vm", "")
			if err := os.Mkdir(filepath.Join(out, "mnt"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(out, 0o711); err != nil {
				t.Fatal(err)
			}
			m := cli.MountAs(t, nil, store, filepath.Join(out, "mnt"), "--allow-other")
			text := asNobody(t, libvirtRestore, out, m.Path("vm/libvirt-save"))
			sameFile(t, filepath.Join(out, "again"), filepath.Join(out, "seen"))
			if !strings.Contains(text, "it goes on") {
				t.Errorf("it does not go on:\n%s", text)
			}
			sameStream(t, m.Path("vm/libvirt-save"), filepath.Join(out, "save"), format)
			m.Unmount()
		})
	}
}

// sameStream compares what lies before the streams of two save files: it is the same but for the format.
func sameStream(t *testing.T, got, want, format string) {
	t.Helper()
	read := func(path string) []byte {
		text, err := cli.Tool(t, time.Minute, "head", "-c", "1000000", path)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(text)
	}
	g, w := read(got), read(want)
	if format != "raw" {
		copy(w[28:32], make([]byte, 4))
	}
	n := 92 + int(binary.LittleEndian.Uint32(w[20:]))
	if len(w) < n || !bytes.Equal(g[:n], w[:n]) {
		t.Errorf("the header of the file on the mount is another one")
	}
}

// libvirtRestore restores a machine, looks at its memory before it runs, and lets it go on.
const libvirtRestore = libvirtd + `
v restore "$2"
v qemu-monitor-command g --hmp "pmemsave 0 0x2000000 \"$1/again\""
now() { # the registers, and the ticks of the BIOS' clock
	v qemu-monitor-command g --hmp 'info registers' | grep -E 'IP=|AX='
	v qemu-monitor-command g --hmp 'xp /1wx 0x46c'
}
before=$(now)
v resume g
for i in $(seq 300); do
	[ "$(now)" = "$before" ] || { echo it goes on; break; }
	sleep 0.1
done
`

// needLibvirt skips a test where the tools are missing.
func needLibvirt(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"libvirtd", "virsh", "setpriv", "qemu-system-x86_64", "lzop"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
}
