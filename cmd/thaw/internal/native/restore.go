package native

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm/state"
)

// A Restore is how a VMM restores a checkpoint from a mount.
type Restore struct {
	VMM string `json:"vmm"`
	// Ways are the ways, the best one first.
	Ways []Way `json:"ways"`
}

// A Way is one command, or one request to a VMM's API.
type Way struct {
	For string `json:"for"` // which versions, or when
	// Command is for a shell. "..." stands for what the machine was started with.
	Command string `json:"command"`
	// Request is the body that the command sends, if it sends one.
	Request json.RawMessage `json:"request,omitempty"`
	Note    string          `json:"note,omitempty"`
}

// RestoreOf says how a checkpoint is restored whose directory on a mount is dir; nil if no VMM is known that
// could do it.
func RestoreOf(c *index.Checkpoint, dir string) *Restore {
	i := infoOf(c)
	switch {
	case i.Imported.Format != "" && !i.Imported.Restorable:
		return nil
	case i.Imported.Format == firecrackerVMM && has(c, fcState):
		memory := cmp.Or(memoryName(c), memoryFile)
		return &Restore{firecrackerVMM, []Way{firecrackerWay(&i, dir, memory)}}
	case i.Imported.Format == cloudVMM && has(c, chConfig) && memoryName(c) != "":
		return &Restore{cloudVMM, cloudWays(dir)}
	case i.Imported.Format == "libvirt" && streamOf(c) != nil:
		return &Restore{"libvirt", []Way{{
			For: "libvirt", Command: "virsh restore " + quote(filepath.Join(dir, libvirtFile)),
			Note: "it reads all of memory; the mount needs --allow-user libvirt-qemu (elsewhere qemu) unless " +
				"libvirtd is the user's own",
		}}}
	case i.VMM == qemuVMM && has(c, stateFile):
		return &Restore{qemuVMM, qemuWays(&i, c, dir)}
	case i.Format == state.InfoFormat && has(c, stateFile):
		return &Restore{"thaw", []Way{{For: "thaw", Command: "thaw vm restore " + quote(dir)}}}
	}
	return nil
}

// firecrackerWay is a request to Firecracker.
func firecrackerWay(i *info, dir, memory string) Way {
	type backend struct {
		Type string `json:"backend_type"`
		Path string `json:"backend_path"`
	}
	body, err := json.Marshal(struct {
		Snapshot string  `json:"snapshot_path"`
		Memory   backend `json:"mem_backend"`
		Track    bool    `json:"track_dirty_pages"`
		Resume   bool    `json:"resume_vm"`
	}{filepath.Join(dir, fcState), backend{"File", filepath.Join(dir, memory)}, true, true})
	if err != nil {
		panic(err) // texts and booleans
	}
	versions := "Firecracker"
	switch {
	case i.Imported.Releases != "":
		versions += " " + i.Imported.Releases + " or later, as far as it loads this version"
	case i.Imported.Snapshot != "":
		versions += " that loads snapshots of version " + i.Imported.Snapshot
	}
	return Way{
		For: versions,
		Command: "curl --unix-socket API_SOCKET -X PUT http://localhost/snapshot/load -d " +
			quote(string(body)),
		Request: body,
		Note: "track_dirty_pages: the next snapshot can be a diff of what was written. Without it a diff has " +
			"all pages that were read or prefetched, and a full snapshot reads all of memory through the " +
			"mount. Before Firecracker 1.13 the field is called enable_diff_snapshots",
	}
}

// cloudWays are commands of Cloud Hypervisor.
func cloudWays(dir string) []Way {
	restore := func(mode string) string {
		return "cloud-hypervisor --api-socket API_SOCKET --restore " + quote("source_url=file://"+dir+mode)
	}
	return []Way{{
		For: "Cloud Hypervisor after 53", Command: restore(",memory_restore_mode=copyonwrite"),
		Note: "memory is mapped. With shared memory, huge pages, VFIO, vdpa and virtio-mem it is copied " +
			"instead, which its log says",
	}, {
		For: "Cloud Hypervisor 52 and later", Command: restore(",memory_restore_mode=ondemand"),
	}, {
		For: "all versions", Command: restore(""), Note: "copies the pages that are not zero",
	}}
}

// qemuWays are commands of QEMU: with its memory mapped from the mount, and with a stream that has it.
func qemuWays(i *info, c *index.Checkpoint, dir string) (ways []Way) {
	block, note := "ram", "with the capability x-ignore-shared, as \"thaw help qemu\" shows"
	incoming := " -incoming defer"
	if len(i.Imported.Blocks) > 0 {
		block, note = i.Imported.Blocks[0], ""
		incoming = " -incoming " + quote("exec:cat "+quote(filepath.Join(dir, stateFile)))
	}
	backend := func(path, how string) string {
		return "qemu-system-... ... -object " + quote(fmt.Sprintf(
			"memory-backend-file,id=%s,size=%d,mem-path=%s,share=off%s", option(block), c.MemoryBytes, option(path),
			how)) + " -machine " + quote("memory-backend="+option(block)) + incoming
	}
	ways = []Way{{
		For: "QEMU 8.2 and later", Command: backend(filepath.Join(dir, memoryFile), ",readonly=on,rom=off"),
		Note: note,
	}, {
		For: "QEMU before 8.2", Command: backend(filepath.Join(dir, "clones", "ID", memoryFile), ""),
		Note: join("ID is any name, another one for each machine", note),
	}}
	if s := streamOf(c); s != nil {
		path := filepath.Join(dir, s.name)
		ways = append(ways, Way{
			For: "QEMU, all versions", Command: "qemu-system-... ... -incoming " + quote("exec:cat "+quote(path)),
			Note: "the machine's own command line; it reads all of memory. From 8.2 on also -incoming file:" + path,
		})
	}
	return ways
}

// join joins two notes, of which one may be empty.
func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + "; " + b
}
