package tests

import (
	"slices"
	"strings"
	"testing"
)

// rooms says which packages of its part a package may import. A package that is not listed may import
// all of them.
var rooms = map[string][]string{
	"vmm/kvm":   nil,
	"vmm/ram":   nil,
	"vmm/meter": nil,
	"vmm/vcpu":  {"vmm/kvm"},
	"vmm/state": {"vmm/device", "vmm/guest", "vmm/kvm", "vmm/ram"},
	"vmm/boot":  {"vmm/guest", "vmm/kvm", "vmm/linux", "vmm/ram"},
	// What a machine consists of does not know the machine.
	"vmm/device": nil,
	"vmm/guest":  nil,
	"vmm/linux":  {"vmm/kvm"},
	"vmm/acpi":   nil,
	"vmm/trace":  nil,
	"vmm/api":    nil,
	// What the verbs of the command line stand on: the server of a mount does not know them, nor the
	// lab, and what reaches a server does not know it.
	"cmd/thaw/internal/exitcode": nil,
	"cmd/thaw/internal/outfile":  nil,
	"cmd/thaw/internal/doctor":   nil,
	"cmd/thaw/internal/verify":   {"cmd/thaw/internal/exitcode"},
	"cmd/thaw/internal/guestmem": nil,
	"cmd/thaw/internal/importer": {"cmd/thaw/internal/exitcode", "cmd/thaw/internal/guestmem",
		"cmd/thaw/internal/native"},
	"cmd/thaw/internal/native":  {"cmd/thaw/internal/guestmem"},
	"cmd/thaw/internal/control": {"cmd/thaw/internal/exitcode"},
	"cmd/thaw/internal/process": {"cmd/thaw/internal/exitcode", "cmd/thaw/internal/control"},
	"cmd/thaw/internal/access": {"cmd/thaw/internal/exitcode", "cmd/thaw/internal/control",
		"cmd/thaw/internal/process"},
	"cmd/thaw/internal/uffd": {"cmd/thaw/internal/exitcode", "cmd/thaw/internal/control"},
	"cmd/thaw/internal/server": {"cmd/thaw/internal/exitcode", "cmd/thaw/internal/control",
		"cmd/thaw/internal/process", "cmd/thaw/internal/access", "cmd/thaw/internal/native",
		"cmd/thaw/internal/holder"},
}

// TestRooms: the packages of a part know one another in one direction, in tests too.
func TestRooms(t *testing.T) {
	seen := 0
	for _, p := range packages(t, "amd64") {
		name := strings.TrimPrefix(p.ImportPath, module)
		may, ruled := rooms[name]
		if !ruled {
			continue
		}
		seen++
		for _, i := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			to, ours := strings.CutPrefix(i, module)
			inside := listed{ImportPath: i}.part() == p.part()
			if ours && inside && to != name && !slices.Contains(may, to) {
				t.Errorf("%s imports %s: it may know only %v", name, to, may)
			}
		}
	}
	if seen != len(rooms) {
		t.Errorf("%d of %d packages are there", seen, len(rooms))
	}
}
