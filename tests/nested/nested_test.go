package nested

import (
	"os"
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

// otherOnHardware are the tests of machines that go other ways there: where second-level tables are
// in the place of shadow tables, where ring 0 is executed and not interpreted, and where the kernel
// has no asynchronous write-protection.
var otherOnHardware = []string{"Kernel", "KernelGoesOn", "GenerationID", "LostPageWithInterrupts",
	"MemoryLost", "TwoVCPUsLoseMemory", "ServerDies", "ServerHangs", "UnreadablePage",
	"RestoreFromAMount", "CheckpointBecomesTheMemory", "StopDuringSync", "TrackerIsExact",
	"RegistersSurvive", "TwoVCPUs", "StateRoundTrip", "ClockModes", "DeadlineSurvives",
	"InterruptLines", "Trace", "TraceTwoVCPUs", "Scan", "SamplesGoOn", "FeaturesOfAnotherHost"}

// TestVMM: machines, their checkpoints and restores, memory that is lost. On a host with a KVM of its
// own, where all tests of the package run anyway, those that go other ways here.
func TestVMM(t *testing.T) {
	t.Parallel()
	s := suite{pkg: "vmm"}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		s.run = "^Test(" + strings.Join(otherOnHardware, "|") + ")$"
	}
	nested(t, s)
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

// TestClock: what thaw does when somebody sets the clock of the host, which is done on a host of its own.
func TestClock(t *testing.T) {
	t.Parallel()
	nested(t, suite{pkg: "tests/rights", run: "^TestClockJumps$", needsThaw: true})
}
