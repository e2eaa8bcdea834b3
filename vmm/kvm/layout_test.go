package kvm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// layout is what this package believes of linux/kvm.h: a C expression and its value.
func layout() map[string]uintptr {
	var (
		regs   Regs
		sregs  Sregs
		xcrs   XCRs
		debug  DebugRegs
		events VCPUEvents
		msr    MSREntry
		cpuid  CPUIDEntry
		region MemoryRegion
		seg    Segment
		pic    PICState
		ioapic IOAPICState
		pit    PIT
		ch     PITChannel
		clock  Clock
		chip   IRQChip
	)
	values := map[string]uintptr{
		"KVM_CAP_ADJUST_CLOCK": uintptr(CapAdjustClock), "KVM_CAP_MAX_VCPUS": uintptr(CapMaxVCPUs),
		"KVM_CAP_TSC_DEADLINE_TIMER": uintptr(CapTSCDeadline),

		"KVM_IRQCHIP_PIC_MASTER": PICMaster, "KVM_IRQCHIP_PIC_SLAVE": PICSlave,
		"KVM_IRQCHIP_IOAPIC": IOAPIC, "KVM_IOAPIC_NUM_PINS": IOAPICPins,
		"KVM_PIT_SPEAKER_DUMMY": pitSpeakerDummy, "KVM_CLOCK_REALTIME": ClockRealtime,
		"KVM_MP_STATE_RUNNABLE": MPRunnable, "KVM_MP_STATE_HALTED": mpHalted,

		"KVM_VCPUEVENT_VALID_SHADOW": EventsHaveShadow, "KVM_X86_SHADOW_INT_STI": ShadowSTI,

		"sizeof(struct kvm_lapic_state)":                 sizeOf[LAPIC](),
		"sizeof(struct kvm_irqchip)":                     sizeOf[IRQChip](),
		"sizeof(struct kvm_pic_state)":                   sizeOf[PICState](),
		"sizeof(struct kvm_ioapic_state)":                sizeOf[IOAPICState](),
		"sizeof(struct kvm_pit_config)":                  sizeOf[pitConfig](),
		"sizeof(struct kvm_pit_state2)":                  sizeOf[PIT](),
		"sizeof(struct kvm_pit_channel_state)":           sizeOf[PITChannel](),
		"sizeof(struct kvm_clock_data)":                  sizeOf[Clock](),
		"sizeof(struct kvm_irq_level)":                   sizeOf[irqLevel](),
		"sizeof(struct kvm_stats_header)":                statsHeaderSize,
		"sizeof(struct kvm_stats_desc)":                  statsDescSize,
		"offsetof(struct kvm_irqchip, chip)":             unsafe.Offsetof(chip.Data),
		"offsetof(struct kvm_pic_state, isr)":            unsafe.Offsetof(pic.ISR),
		"offsetof(struct kvm_pic_state, auto_eoi)":       unsafe.Offsetof(pic.AutoEOI),
		"offsetof(struct kvm_pic_state, elcr_mask)":      unsafe.Offsetof(pic.ELCRMask),
		"offsetof(struct kvm_ioapic_state, irr)":         unsafe.Offsetof(ioapic.IRR),
		"offsetof(struct kvm_ioapic_state, redirtbl)":    unsafe.Offsetof(ioapic.Pin),
		"offsetof(struct kvm_pit_channel_state, status)": unsafe.Offsetof(ch.Status),
		"offsetof(struct kvm_pit_channel_state, mode)":   unsafe.Offsetof(ch.Mode),
		"offsetof(struct kvm_pit_channel_state, gate)":   unsafe.Offsetof(ch.Gate),
		"offsetof(struct kvm_pit_state2, flags)":         unsafe.Offsetof(pit.Flags),
		"offsetof(struct kvm_clock_data, realtime)":      unsafe.Offsetof(clock.Realtime),
		"offsetof(struct kvm_clock_data, host_tsc)":      unsafe.Offsetof(clock.HostTSC),
		"offsetof(struct kvm_stats_header, num_desc)":    8,
		"offsetof(struct kvm_stats_header, desc_offset)": 16,
		"offsetof(struct kvm_stats_header, data_offset)": 20,
		"offsetof(struct kvm_stats_desc, size)":          6,
		"offsetof(struct kvm_stats_desc, offset)":        8,

		"KVM_CAP_USER_MEMORY": uintptr(CapUserMemory), "KVM_CAP_EXT_CPUID": uintptr(CapExtCPUID),
		"KVM_CAP_MP_STATE":       uintptr(CapMPState),
		"KVM_CAP_VCPU_EVENTS":    uintptr(CapVCPUEvents),
		"KVM_CAP_XSAVE":          uintptr(CapXSave),
		"KVM_CAP_IMMEDIATE_EXIT": uintptr(CapImmediateExit), "KVM_CAP_XSAVE2": uintptr(CapXSave2),

		"KVM_EXIT_IO": uintptr(ExitIO), "KVM_EXIT_MMIO": uintptr(ExitMMIO),
		"KVM_EXIT_SHUTDOWN":   uintptr(ExitShutdown),
		"KVM_EXIT_FAIL_ENTRY": uintptr(ExitFailEntry), "KVM_EXIT_INTR": uintptr(ExitIntr),
		"KVM_EXIT_INTERNAL_ERROR": uintptr(ExitInternalError),

		"sizeof(struct kvm_regs)": sizeOf[Regs](), "sizeof(struct kvm_sregs)": sizeOf[Sregs](),
		"sizeof(struct kvm_segment)": sizeOf[Segment](), "sizeof(struct kvm_dtable)": sizeOf[Dtable](),
		"sizeof(struct kvm_xcrs)": sizeOf[XCRs](), "sizeof(struct kvm_debugregs)": sizeOf[DebugRegs](),
		"sizeof(struct kvm_vcpu_events)":             sizeOf[VCPUEvents](),
		"sizeof(struct kvm_mp_state)":                sizeOf[MPState](),
		"sizeof(struct kvm_msr_entry)":               sizeOf[MSREntry](),
		"sizeof(struct kvm_cpuid_entry2)":            sizeOf[CPUIDEntry](),
		"sizeof(struct kvm_userspace_memory_region)": sizeOf[MemoryRegion](),
		"sizeof(struct kvm_xsave)":                   legacyXSave, "sizeof(struct kvm_msrs)": msrsHeader,
		"sizeof(struct kvm_cpuid2)": cpuidHeader, "sizeof(struct kvm_run)": runMinSize,

		"offsetof(struct kvm_run, immediate_exit)": runRequestWord + 1,
		"offsetof(struct kvm_run, exit_reason)":    runExitReason,
		"offsetof(struct kvm_run, io)":             runIO, "offsetof(struct kvm_run, io.size)": runIO + 1,
		"offsetof(struct kvm_run, io.port)": runIO + 2, "offsetof(struct kvm_run, io.count)": runIO + 4,
		"offsetof(struct kvm_run, io.data_offset)":                     runIO + 8,
		"offsetof(struct kvm_run, mmio.phys_addr)":                     runMMIO,
		"offsetof(struct kvm_run, mmio.data)":                          runMMIO + 8,
		"offsetof(struct kvm_run, mmio.len)":                           runMMIO + 16,
		"offsetof(struct kvm_run, mmio.is_write)":                      runMMIO + 20,
		"offsetof(struct kvm_run, internal.ndata)":                     runInternal + 4,
		"offsetof(struct kvm_run, internal.data)":                      runInternal + 8,
		"offsetof(struct kvm_regs, rsi)":                               unsafe.Offsetof(regs.RSI),
		"offsetof(struct kvm_regs, rsp)":                               unsafe.Offsetof(regs.RSP),
		"offsetof(struct kvm_regs, r8)":                                unsafe.Offsetof(regs.R8),
		"offsetof(struct kvm_regs, rip)":                               unsafe.Offsetof(regs.RIP),
		"offsetof(struct kvm_segment, dpl)":                            unsafe.Offsetof(seg.DPL),
		"offsetof(struct kvm_segment, db)":                             unsafe.Offsetof(seg.DB),
		"offsetof(struct kvm_segment, unusable)":                       unsafe.Offsetof(seg.Unusable),
		"offsetof(struct kvm_sregs, ss)":                               unsafe.Offsetof(sregs.SS),
		"offsetof(struct kvm_sregs, tr)":                               unsafe.Offsetof(sregs.TR),
		"offsetof(struct kvm_sregs, idt)":                              unsafe.Offsetof(sregs.IDT),
		"offsetof(struct kvm_sregs, cr0)":                              unsafe.Offsetof(sregs.CR0),
		"offsetof(struct kvm_sregs, efer)":                             unsafe.Offsetof(sregs.EFER),
		"offsetof(struct kvm_sregs, interrupt_bitmap)":                 unsafe.Offsetof(sregs.InterruptBitmap),
		"offsetof(struct kvm_xcrs, xcrs)":                              unsafe.Offsetof(xcrs.XCRs),
		"offsetof(struct kvm_debugregs, flags)":                        unsafe.Offsetof(debug.Flags),
		"offsetof(struct kvm_vcpu_events, nmi)":                        unsafe.Offsetof(events.NMI),
		"offsetof(struct kvm_vcpu_events, flags)":                      unsafe.Offsetof(events.Flags),
		"offsetof(struct kvm_vcpu_events, smi)":                        unsafe.Offsetof(events.SMI),
		"offsetof(struct kvm_vcpu_events, exception_has_payload)":      unsafe.Offsetof(events.HasPayload),
		"offsetof(struct kvm_vcpu_events, exception_payload)":          unsafe.Offsetof(events.Payload),
		"offsetof(struct kvm_msr_entry, data)":                         unsafe.Offsetof(msr.Data),
		"offsetof(struct kvm_cpuid_entry2, eax)":                       unsafe.Offsetof(cpuid.EAX),
		"offsetof(struct kvm_userspace_memory_region, userspace_addr)": unsafe.Offsetof(region.UserspaceAddr),
	}
	for _, r := range []request{
		ioGetAPIVersion, ioCreateVM, ioGetMSRIndexList, ioCheckExtension, ioGetVCPUMmapSize,
		ioGetSupportedCPUID, ioCreateVCPU, ioSetUserMemoryRegion, ioSetTSSAddr, ioSetIdentityMapAddr,
		ioCreateIRQChip, ioIRQLine, ioGetIRQChip, ioSetIRQChip, ioCreatePIT2, ioSetClock, ioGetClock,
		ioRun, ioGetRegs, ioSetRegs, ioGetSregs, ioSetSregs, ioGetMSRs, ioSetMSRs, ioSetSignalMask,
		ioGetLAPIC, ioSetLAPIC, ioSetCPUID2, ioGetCPUID2, ioGetMPState, ioSetMPState, ioGetVCPUEvents,
		ioSetVCPUEvents, ioGetPIT2, ioSetPIT2, ioGetDebugRegs, ioSetDebugRegs, ioSetTSCKHz,
		ioGetTSCKHz, ioGetXSave, ioSetXSave, ioGetXCRs, ioSetXCRs, ioKVMClockCtrl, ioGetStatsFD,
		ioGetXSave2,
	} {
		values[r.name] = r.number
	}
	return values
}

// TestLayout compares with the kernel's own header.
func TestLayout(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs an x86-64 host: the header differs between architectures")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skipf("needs gcc: %v", err)
	}
	dir := t.TempDir()
	src := "#include <stdio.h>\n#include <stddef.h>\n#include <linux/kvm.h>\nint main(void) {\n"
	want := layout()
	for expr := range want {
		src += fmt.Sprintf("printf(\"%s\\t%%lu\\n\", (unsigned long)(%s));\n", expr, expr)
	}
	src += "return 0;\n}\n"
	c, bin := filepath.Join(dir, "layout.c"), filepath.Join(dir, "layout")
	if err := os.WriteFile(c, []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-o", bin, c).CombinedOutput(); err != nil {
		t.Skipf("needs kernel headers that have all of it: %s", out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d values from C, %d here", len(lines), len(want))
	}
	for _, l := range lines {
		expr, value, _ := strings.Cut(l, "\t")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		// sizeof(struct kvm_run) may grow.
		if uintptr(n) != want[expr] && !(expr == "sizeof(struct kvm_run)" && uintptr(n) > want[expr]) {
			t.Errorf("%s is %#x, here it is %#x", expr, n, want[expr])
		}
	}
}

// sizeOf returns the size of the Go mirror of a kernel structure.
func sizeOf[T any]() uintptr {
	var v T
	return unsafe.Sizeof(v)
}
