package native

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/thawfs/thaw/index"
)

// Names of files of checkpoints and of VMMs.
const (
	memoryFile     = "memory"
	stateFile      = "state"
	fcMemory       = "mem"
	fcState        = "vmstate"
	chMemory       = "memory-ranges"
	chConfig       = "config.json"
	chState        = "state.json"
	streamFile     = "migration-stream"
	libvirtHead    = "libvirt-save-header"
	libvirtFile    = "libvirt-save"
	qemuVMM        = "qemu"
	firecrackerVMM = "firecracker"
	cloudVMM       = "cloud-hypervisor"
)

// info is what the info.json of a checkpoint tells of its origin.
type info struct {
	VMM      string `json:"vmm"`
	Format   string `json:"format"`
	Imported struct {
		Format     string   `json:"format"`
		Restorable bool     `json:"restorable"`
		Blocks     []string `json:"ram_blocks"`
		Releases   string   `json:"firecracker"`
		Snapshot   string   `json:"snapshot_version"`
	} `json:"imported"`
}

// infoOf reads it; what cannot be read, or shown as it is, tells nothing.
func infoOf(c *index.Checkpoint) (i info) {
	if json.Unmarshal(c.Guest, &i) != nil || !i.printable() {
		return info{}
	}
	return i
}

// printable says whether all of it that gets into commands can be shown: anybody may have written it, a
// terminal obeys what it is told, and a new line would look like a command.
func (i *info) printable() bool {
	for _, text := range append([]string{i.Imported.Releases, i.Imported.Snapshot}, i.Imported.Blocks...) {
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
			return false
		}
	}
	return true
}

// has says whether a checkpoint has files.
func has(c *index.Checkpoint, files ...string) bool {
	for _, f := range files {
		if _, ok := c.Files[f]; !ok {
			return false
		}
	}
	return true
}

// streams says whether the state of a checkpoint is a migration stream that pages can be put into.
func (i *info) streams(c *index.Checkpoint) bool {
	if i.VMM != qemuVMM || len(i.Imported.Blocks) == 0 || !has(c, stateFile) {
		return false
	}
	return i.Imported.Format == "qemu" || i.Imported.Format == "libvirt"
}
