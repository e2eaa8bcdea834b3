package nested

import "testing"

// needsGCC are tests of headers, which are the same everywhere.
const needsGCC = "^TestLayout$"

// TestKVM: the ioctls.
func TestKVM(t *testing.T) {
	t.Parallel()
	nested(t, suite{pkg: "vmm/kvm", skip: needsGCC})
}

// TestVMM: machines, their checkpoints and restores, memory that is lost.
func TestVMM(t *testing.T) {
	t.Parallel()
	nested(t, suite{pkg: "vmm"})
}
