package linux

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// TestLayout compares offsets and values with the kernel's own header.
func TestLayout(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs an x86-64 host: the header is of that architecture")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skipf("needs gcc: %v", err)
	}
	const hdr, params = "offsetof(struct boot_params, hdr.%s)", "offsetof(struct boot_params, %s)"
	want := map[string]uint64{
		"sizeof(struct boot_params)": zeroPageSize, "sizeof(struct boot_e820_entry)": e820EntrySize,
		"E820_MAX_ENTRIES_ZEROPAGE": maxE820Entries,
		"LOADED_HIGH":               loadedHigh, "CAN_USE_HEAP": canUseHeap,
		"XLF_KERNEL_64": xlfKernel64, "XLF_CAN_BE_LOADED_ABOVE_4G": xlfLoadedAbove4GB,
		"offsetof(struct boot_e820_entry, size)": 8, "offsetof(struct boot_e820_entry, type)": 16,
	}
	for field, off := range map[string]uint64{
		"setup_sects": hdrSetupSects, "syssize": hdrSysSize, "boot_flag": hdrBootFlag, "jump": hdrJump,
		"header": hdrMagic, "version": hdrVersion, "type_of_loader": hdrTypeOfLoader,
		"loadflags": hdrLoadFlags, "code32_start": hdrCode32Start, "ramdisk_image": hdrRamdiskImage,
		"ramdisk_size": hdrRamdiskSize, "heap_end_ptr": hdrHeapEndPtr, "cmd_line_ptr": hdrCmdLinePtr,
		"initrd_addr_max": hdrInitrdAddrMax, "kernel_alignment": hdrKernelAlignment,
		"relocatable_kernel": hdrRelocatable, "xloadflags": hdrXLoadFlags,
		"cmdline_size": hdrCmdlineSize, "pref_address": hdrPrefAddress, "init_size": hdrInitSize,
	} {
		want[fmt.Sprintf(hdr, field)] = off
	}
	for field, off := range map[string]uint64{
		"acpi_rsdp_addr": bpACPIRSDPAddr, "ext_ramdisk_image": bpExtRamdiskImage,
		"ext_ramdisk_size": bpExtRamdiskSize, "e820_entries": bpE820Entries, "hdr": hdrStart,
		"edd_mbr_sig_buffer": hdrEnd, "e820_table": bpE820Table,
	} {
		want[fmt.Sprintf(params, field)] = off
	}
	for expr, value := range compile(t, want) {
		if value != want[expr] {
			t.Errorf("%s is %#x, here it is %#x", expr, value, want[expr])
		}
	}
}

// compile lets the C compiler tell what expressions are.
func compile(t *testing.T, exprs map[string]uint64) map[string]uint64 {
	t.Helper()
	dir := t.TempDir()
	src := "#include <stdio.h>\n#include <stddef.h>\n#include <asm/bootparam.h>\nint main(void) {\n"
	for expr := range exprs {
		src += fmt.Sprintf("printf(\"%s\\t%%lu\\n\", (unsigned long)(%s));\n", expr, expr)
	}
	c, bin := filepath.Join(dir, "layout.c"), filepath.Join(dir, "layout")
	if err := os.WriteFile(c, []byte(src+"return 0;\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-o", bin, c).CombinedOutput(); err != nil {
		t.Skipf("needs kernel headers that have all of it: %s", out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]uint64{}
	for l := range strings.Lines(string(out)) {
		expr, value, _ := strings.Cut(strings.TrimSpace(l), "\t")
		if values[expr], err = strconv.ParseUint(value, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if len(values) != len(exprs) {
		t.Errorf("%d values from C, %d expected", len(values), len(exprs))
	}
	return values
}

// TestHostKernel loads the kernels of this host.
func TestHostKernel(t *testing.T) {
	kernels, err := filepath.Glob("/boot/vmlinuz-*")
	if err != nil {
		t.Fatal(err)
	}
	loaded := 0
	for _, path := range kernels {
		f, err := os.Open(path)
		if err != nil {
			t.Logf("%v", err)
			continue
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		file := io.NewSectionReader(f, 0, info.Size())
		if head, err := readHead(file, 0x3c); err == nil && strings.HasSuffix(string(head), "ARM\x64") {
			t.Logf("%s is for arm64", path)
			continue
		}
		m := newGuestMemory(ramOf(512 * mib))
		e, err := Load(m, Config{Kernel: file, Initrd: file, RAM: m.ram, Cmdline: "console=ttyS0"})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		loaded++
		checkEntry(t, m, e)
		t.Logf("%s: entry %#x, kernel %#x, initrd %#x", path, e.Regs.RIP, e.Kernel, e.Initrd)
	}
	if loaded == 0 {
		t.Skipf("needs a readable /boot/vmlinuz-* for x86-64: %d are there", len(kernels))
	}
}
