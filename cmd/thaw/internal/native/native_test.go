package native

import (
	"encoding/json"
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
