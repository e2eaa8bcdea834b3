package native

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index"
)

func checkpointOf(guest string, files ...string) index.Checkpoint {
	c := index.Checkpoint{Name: "n", MemoryBytes: 8 << 20, DataPages: 3, ZeroPages: 2045,
		Guest: json.RawMessage(guest), Files: map[string]int64{}}
	for _, f := range files {
		c.Files[f] = 100
	}
	return c
}

func imported(format, vmm, more string) string {
	return `{"vmm":"` + vmm + `","imported":{"format":"` + format + `",` + more + `"restorable":true}}`
}

// Names and commands of each VMM's checkpoints.
func TestNamesAndCommands(t *testing.T) {
	for _, c := range []struct {
		of       index.Checkpoint
		memory   []string
		composed string
		commands []string // of the ways, in their order
	}{
		{checkpointOf(imported("firecracker", "firecracker", `"firecracker":"1.15",`), "vmstate"),
			[]string{"mem"}, "", []string{`curl --unix-socket API_SOCKET -X PUT http://localhost/snapshot/load -d ` +
				`'{"snapshot_path":"/mnt/n/vmstate","mem_backend":{"backend_type":"File","backend_path":"/mnt/n/mem"},` +
				`"track_dirty_pages":true,"resume_vm":true}'`}},
		{checkpointOf(imported("cloud-hypervisor", "cloud-hypervisor", ""), "config.json", "state.json"),
			[]string{"memory-ranges"}, "", []string{
				"cloud-hypervisor --api-socket API_SOCKET --restore " +
					"source_url=file:///mnt/n,memory_restore_mode=copyonwrite",
				"cloud-hypervisor --api-socket API_SOCKET --restore " +
					"source_url=file:///mnt/n,memory_restore_mode=ondemand",
				"cloud-hypervisor --api-socket API_SOCKET --restore source_url=file:///mnt/n"}},
		{checkpointOf(imported("qemu", "qemu", `"ram_blocks":["pc.ram"],`), "state"),
			nil, "migration-stream", []string{
				"qemu-system-... ... -object memory-backend-file,id=pc.ram,size=8388608,mem-path=/mnt/n/memory," +
					"share=off,readonly=on,rom=off -machine memory-backend=pc.ram -incoming 'exec:cat /mnt/n/state'",
				"qemu-system-... ... -object memory-backend-file,id=pc.ram,size=8388608," +
					"mem-path=/mnt/n/clones/ID/memory,share=off -machine memory-backend=pc.ram " +
					"-incoming 'exec:cat /mnt/n/state'",
				"qemu-system-... ... -incoming 'exec:cat /mnt/n/migration-stream'"}},
		{checkpointOf(imported("libvirt", "qemu", `"ram_blocks":["pc.ram"],`), "state", "libvirt-save-header"),
			nil, "libvirt-save", []string{"virsh restore /mnt/n/libvirt-save"}},
		{checkpointOf(`{"format":"thaw-vm-1"}`, "state"), nil, "", []string{"thaw vm restore /mnt/n"}},
		{checkpointOf(`{"vmm":"qemu"}`, "state"), nil, "", []string{
			"qemu-system-... ... -object memory-backend-file,id=ram,size=8388608,mem-path=/mnt/n/memory," +
				"share=off,readonly=on,rom=off -machine memory-backend=ram -incoming defer",
			"qemu-system-... ... -object memory-backend-file,id=ram,size=8388608,mem-path=/mnt/n/clones/ID/memory," +
				"share=off -machine memory-backend=ram -incoming defer"}},
		// Of what is for reading only, or not known, nothing is said.
		{checkpointOf(`{"imported":{"format":"elf","restorable":false}}`, "core-notes"), nil, "", nil},
		{checkpointOf(`{"imported":{"format":"lime","restorable":false}}`), nil, "", nil},
		{checkpointOf(imported("cloud-hypervisor", "cloud-hypervisor", ""), "state.json"),
			[]string{"memory-ranges"}, "", nil},
		{checkpointOf(`not JSON`, "state", "vmstate"), nil, "", nil},
		{checkpointOf(``, "state"), nil, "", nil},
	} {
		n := Names(c.of)
		var composed string
		for _, f := range n.Composed {
			composed = f.Name
		}
		if !cmp.Equal(n.Memory, c.memory) || composed != c.composed || len(n.Composed) > 1 {
			t.Errorf("%s: names %v and %q, want %v and %q", c.of.Guest, n.Memory, composed, c.memory, c.composed)
		}
		var commands []string
		if r := RestoreOf(&c.of, "/mnt/n"); r != nil {
			for _, w := range r.Ways {
				commands = append(commands, w.Command)
			}
		}
		if d := cmp.Diff(c.commands, commands); d != "" {
			t.Errorf("%s: commands: -want +got\n%s", c.of.Guest, d)
		}
	}
}

// What an info.json says of itself gets into no command, and under no command, if a terminal would obey it or
// show it as a line of its own.
func TestNothingButTextIsShown(t *testing.T) {
	for _, bad := range []string{"x\\u001b[2J", "x\\n  rm -rf /", "x\\u202ey", "\\u009b2J", "\\u007f"} {
		for _, c := range []index.Checkpoint{
			checkpointOf(imported("qemu", "qemu", `"ram_blocks":["`+bad+`"],`), "state"),
			checkpointOf(imported("firecracker", "firecracker", `"firecracker":"`+bad+`",`), "vmstate"),
			checkpointOf(imported("firecracker", "firecracker", `"snapshot_version":"`+bad+`",`), "vmstate"),
		} {
			if !json.Valid(c.Guest) {
				t.Fatalf("%s is not JSON", c.Guest)
			}
			if r := RestoreOf(&c, "/mnt/n"); r != nil {
				t.Errorf("%s: %q", c.Guest, r.Ways)
			}
		}
	}
}

// The names of directories get into commands as they are.
func TestCommandsOfOddDirectories(t *testing.T) {
	const dir = "/mnt/100%d,x"
	ch := checkpointOf(imported("cloud-hypervisor", "cloud-hypervisor", ""), "config.json", "state.json")
	for _, w := range RestoreOf(&ch, dir).Ways {
		if !strings.Contains(w.Command, "source_url=file://"+dir) || strings.Contains(w.Command, "!") {
			t.Error(w.Command)
		}
	}
	qemu := checkpointOf(imported("qemu", "qemu", `"ram_blocks":["a,b"],`), "state")
	first := RestoreOf(&qemu, dir).Ways[0].Command
	for _, want := range []string{"id=a,,b,", "mem-path=/mnt/100%d,,x/memory,", "memory-backend=a,,b "} {
		if !strings.Contains(first, want) {
			t.Errorf("%s has no %s", first, want)
		}
	}
}

// A stored file that has the VMM's name of something else is what it is: no command takes it for that, and no
// export puts that in its place.
func TestNamesThatAreTaken(t *testing.T) {
	fc := checkpointOf(imported("firecracker", "firecracker", ""), "vmstate", "mem")
	if body := string(RestoreOf(&fc, "/mnt/n").Ways[0].Request); !strings.Contains(body, `"/mnt/n/memory"`) {
		t.Error(body)
	}
	ch := checkpointOf(imported("cloud-hypervisor", "cloud-hypervisor", ""), "config.json", "state.json",
		"memory-ranges")
	if r := RestoreOf(&ch, "/mnt/n"); r != nil {
		t.Errorf("%+v", r)
	}
	qemu := checkpointOf(imported("qemu", "qemu", `"ram_blocks":["pc.ram"],`), "state", "migration-stream")
	for _, w := range RestoreOf(&qemu, "/mnt/n").Ways {
		if strings.Contains(w.Command, "migration-stream") {
			t.Error(w.Command)
		}
	}
	for _, c := range []index.Checkpoint{fc, ch, qemu} {
		dir := t.TempDir()
		for _, name := range append(slices.Collect(maps.Keys(c.Files)), "memory") {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := Export(dir, &c); !errors.Is(err, ErrNoNames) {
			t.Errorf("%v: %v", c.Files, err)
		}
		for name := range c.Files {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != name {
				t.Errorf("%s is %q now: %v", name, got, err)
			}
		}
	}
}

// TestAdded: of a directory that was copied from a mount, what the mount had added, and no file of the
// user's.
func TestAdded(t *testing.T) {
	for _, format := range []string{"firecracker", "cloud-hypervisor", "elf", ""} {
		guest := json.RawMessage(imported(format, format, ""))
		files := map[string]int64{"vmstate": 5, "state.json": 6, "mem": 8192, "memory-ranges": 8192, "log": 8192}
		want := map[string][]string{"firecracker": {"mem"}, "cloud-hypervisor": {"memory-ranges"}}[format]
		if got := Added(guest, 8192, files); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", format, got, want)
		}
		files["mem"], files["memory-ranges"] = 4096, 4096 // something else
		if got := Added(guest, 8192, files); len(got) > 0 {
			t.Errorf("%s: %v of another size", format, got)
		}
	}
	r := rand.New(rand.NewPCG(9, rand.Uint64()))
	for range 20 {
		m := randomMachine(r)
		c := m.checkpoint()
		s := streamOf(&c)
		c.Files[s.name] = int64(len(m.whole()))
		if got := Added(c.Guest, m.memory.Size(), c.Files); !slices.Equal(got, []string{s.name}) {
			t.Errorf("%v, want %s", got, s.name)
		}
		for _, off := range []int64{-1, 1, 1 << 40} {
			c.Files[s.name] = int64(len(m.whole())) + off
			if got := Added(c.Guest, m.memory.Size(), c.Files); len(got) > 0 {
				t.Errorf("%v with %d bytes more", got, off)
			}
		}
	}
}

// Whatever a mount is called, a shell gets it as one word.
func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"": "''", "/a-b_c.d": "/a-b_c.d", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'",
	} {
		if got := quote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	c := checkpointOf(imported("qemu", "qemu", `"ram_blocks":["pc.ram"],`), "state")
	r := RestoreOf(&c, "/mnt/a b")
	last := r.Ways[len(r.Ways)-1].Command
	if !strings.HasSuffix(last, `'exec:cat '\''/mnt/a b/migration-stream'\'''`) {
		t.Error(last)
	}
}
