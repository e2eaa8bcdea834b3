package nested

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/thawfs/thaw/tests/qemu"
)

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

// TestKernel: Debian's kernel in thaw's own VMM, saved in mid-boot and in its workload.
func TestKernel(t *testing.T) {
	t.Parallel()
	tools, err := qemu.FindHost()
	if err != nil {
		t.Skip(err)
	}
	files := map[string]string{tools.Kernel: tools.Kernel}
	modules, err := qemu.Modules(tools.Kernel, "virtio_mmio", "virtio_blk", "virtio-rng")
	if err != nil {
		t.Skip(err)
	}
	dir := "/lib/modules/" + strings.TrimPrefix(filepath.Base(tools.Kernel), "vmlinuz-")
	for _, path := range append(modules, dir+"/modules.dep", dir+"/modules.builtin") {
		files[path] = path
	}
	nested(t, suite{pkg: "tests/e2e", run: "^TestKernelInMidBoot$", files: files, needsThaw: true,
		memory: 2 << 30})
}
