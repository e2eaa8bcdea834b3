package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/tests/qemu"
)

// TestImportOfQEMU: what a real QEMU writes, its migration stream and its core, has the memory that the
// machine had, from a file, compressed and from the standard input; and QEMU restores the machine from the
// memory and the state that a mount shows of a stream.
func TestImportOfQEMU(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	spec := image.Spec{Pages: 4096, Seed: 21}
	c := qemu.Config{MemoryBytes: spec.Bytes()}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ram := writeImage(t, spec)
	g, err := qemu.Standing(ctx, c, ram)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for _, err := range []error{
		g.Dump(ctx, path("core"), "elf"), g.Dump(ctx, path("kdump"), "kdump-zlib"),
		g.Physical(ctx, path("seen"), c.MemoryBytes),
		g.MigrateTo(ctx, "exec:tee "+path("stream")+" | gzip -1 > "+path("stream.gz")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	store := path("store")
	for _, name := range []string{"stream", "stream.gz"} {
		importOf(t, store, path(name), name, "")
		sameFile(t, filepath.Join(exported(t, store, name), "memory"), ram)
	}
	importOf(t, store, "-", "piped", path("stream"))
	sameFile(t, filepath.Join(exported(t, store, "piped"), "memory"), ram)
	for _, from := range []string{path("core"), "-"} {
		name := "core" + strings.Trim(from[:1], "/")
		importOf(t, store, from, name, path("core"))
		samePhysical(t, filepath.Join(exported(t, store, name), "memory"), path("seen"))
	}
	r := cli.Fails(t, "not-an-image", "import", store, path("kdump"))
	if !strings.Contains(r.Stderr, "ELF") {
		t.Errorf("what to do with a kdump is not said: %v", r)
	}

	m := cli.Mount(t, store)
	again, err := qemu.Received(ctx, c, m.Path("piped/clones/one/memory"), m.Path("piped/state"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Physical(ctx, path("seen again"), c.MemoryBytes); err != nil {
		t.Fatal(err)
	}
	sameFile(t, path("seen again"), path("seen"))
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	m.Unmount()
}

// importOf imports a path, or a file as the standard input.
func importOf(t *testing.T, store, from, name, stdin string) {
	t.Helper()
	cmd := cli.Command("import", store, from, "--name", name)
	if from == "-" {
		f, err := os.Open(stdin)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.Stdin = f
	}
	if r := cli.RunCommand(t, cmd); r.Code != 0 {
		t.Fatal(r)
	}
}

// exported exports a checkpoint and gives the directory.
func exported(t *testing.T, store, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	cli.OK(t, "export", store, name, dir)
	return dir
}

// samePhysical compares the beginning of an image, whose offsets are guest-physical addresses, with a file.
func samePhysical(t *testing.T, got, want string) {
	t.Helper()
	w, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g := make([]byte, len(w))
	if _, err := f.ReadAt(g, 0); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(w); at += image.PageSize {
		if !bytes.Equal(g[at:at+image.PageSize], w[at:at+image.PageSize]) {
			t.Fatalf("page %d of %s is not what the guest saw", at/image.PageSize, got)
		}
	}
}

// TestImportOfLibvirt: "virsh save" in every format that this libvirt has, "virsh dump" with and without
// --memory-only, of a machine of a libvirtd of the test's own, which runs as another user.
func TestImportOfLibvirt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts libvirtd once a format: not with -short")
	}
	needLibvirt(t)
	dir, err := os.MkdirTemp("/tmp", "thaw-libvirt") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, format := range []string{"raw", "gzip", "bzip2", "xz", "lzop"} {
		t.Run(format, func(t *testing.T) {
			out := filepath.Join(dir, format)
			saveByLibvirt(t, out, format)
			checkLibvirt(t, out, format)
		})
	}
}

// saveByLibvirt saves a machine into files of a new directory, which it makes: see libvirtScript.
func saveByLibvirt(t *testing.T, dir, format string) {
	t.Helper()
	const nobody = 65534
	for _, d := range []string{dir, dir + "/run"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	asNobody(t, libvirtScript, dir, format)
}

// asNobody runs a script of bash as another user, and gives what it printed.
func asNobody(t *testing.T, script string, args ...string) string {
	t.Helper()
	out, err := cli.Tool(t, 2*time.Minute, "setpriv", append([]string{"--reuid=65534", "--regid=65534",
		"--clear-groups", "bash", "-c", script, "script"}, args...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// libvirtd runs a libvirtd in a directory for as long as a script goes on.
const libvirtd = `
set -e
cd "$1"
export HOME=$1 XDG_RUNTIME_DIR=$1/run XDG_CONFIG_HOME=$1/config XDG_CACHE_HOME=$1/cache
export LIBVIRT_AUTOSTART=0 # virsh would start one of its own while ours is not ready
mkdir -p config/libvirt
printf 'stdio_handler = "file"\nsave_image_format = "%s"\n' "${FORMAT-raw}" > config/libvirt/qemu.conf
libvirtd > log 2>&1 & daemon=$!
v() { virsh -q -c qemu:///session "$@"; }
end() { v destroy g || true; kill $daemon; wait $daemon || true; tail log; } >&2 2>&1
trap end EXIT
for i in $(seq 100); do ! v list || break; sleep 0.2; done
`

// libvirtScript saves a machine. It runs SeaBIOS, and so has something in its memory.
const libvirtScript = `FORMAT=$2` + libvirtd + `
cat > domain <<X
<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>$(command -v qemu-system-x86_64)</emulator></devices></domain>
X
v create domain
for i in $(seq 100); do # until the BIOS has begun to work
	v qemu-monitor-command g --hmp 'info registers' | grep -q 'CR0=00000010' || break
	sleep 0.1
done
v suspend g
v qemu-monitor-command g --hmp "pmemsave 0 0x2000000 \"$1/seen\""
v dump --memory-only g core
v save g save
`

// checkLibvirt imports what was saved.
func checkLibvirt(t *testing.T, dir, format string) {
	t.Helper()
	store, seen, save := filepath.Join(dir, "store"), filepath.Join(dir, "seen"), filepath.Join(dir, "save")
	if b, err := os.ReadFile(seen); err != nil || len(bytes.Trim(b, "\x00")) < 64<<10 {
		t.Fatalf("the machine had nothing in its memory: %v", err)
	}
	importOf(t, store, save, "save", "")
	out := exported(t, store, "save")
	sameFile(t, filepath.Join(out, "memory"), seen)
	domain, err := os.ReadFile(filepath.Join(out, "domain.xml"))
	if err != nil || !strings.Contains(string(domain), "<name>g</name>") {
		t.Errorf("the domain is %q, %v", domain, err)
	}
	if st, err := os.Stat(filepath.Join(out, "state")); err != nil || st.Size() == 0 {
		t.Errorf("there is no state: %v", err)
	}
	importOf(t, store, "-", "piped", save)
	sameFile(t, filepath.Join(exported(t, store, "piped"), "memory"), seen)
	importOf(t, store, filepath.Join(dir, "core"), "core", "")
	samePhysical(t, filepath.Join(exported(t, store, "core"), "memory"), seen)
}
