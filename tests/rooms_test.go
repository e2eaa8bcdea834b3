package tests

import (
	"slices"
	"strings"
	"testing"
)

// rooms says which packages of its part a package may import. A package of the VMM that is not
// listed may import all of them.
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
}

// TestRooms: the packages of the VMM know one another in one direction, in tests too.
func TestRooms(t *testing.T) {
	seen := 0
	for _, p := range packages(t, "amd64") {
		name := strings.TrimPrefix(p.ImportPath, module)
		may, listed := rooms[name]
		if !listed {
			continue
		}
		seen++
		for _, i := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			to, ours := strings.CutPrefix(i, module)
			inside := to == "vmm" || strings.HasPrefix(to, "vmm/")
			if ours && inside && to != name && !slices.Contains(may, to) {
				t.Errorf("%s imports %s: it may know only %v", name, to, may)
			}
		}
	}
	if seen != len(rooms) {
		t.Errorf("%d of %d packages are there", seen, len(rooms))
	}
}
