package state

// Registers of the local APIC, as offsets into its page.
const (
	lapicLVTTimer = 0x320

	lapicTimerMode     = 3 << 17 // of lapicLVTTimer
	lapicTimerDeadline = 2 << 17
)

// namedRegister is a register, or the first of several.
type namedRegister struct {
	off  int
	name string
}

// lapicRegisters names the registers that tell something.
func lapicRegisters() []namedRegister {
	return []namedRegister{
		{0x20, "id"}, {0x30, "version"}, {0x80, "tpr"}, {0xa0, "ppr"}, {0xd0, "ldr"}, {0xe0, "dfr"},
		{0xf0, "svr"}, {0x280, "esr"}, {0x300, "icr"}, {0x310, "icr2"}, {lapicLVTTimer, "lvt_timer"},
		{0x330, "lvt_thermal"}, {0x340, "lvt_perf"}, {0x350, "lvt_lint0"}, {0x360, "lvt_lint1"},
		{0x370, "lvt_error"}, {0x380, "timer_initial"}, {0x390, "timer_current"},
		{0x3e0, "timer_divide"},
	}
}

// lapicVectors are the sets of 256 bits, one for each vector, in eight registers each.
func lapicVectors() []namedRegister {
	return []namedRegister{{0x100, "isr"}, {0x180, "tmr"}, {0x200, "irr"}}
}
