package state

// Registers of the local APIC, as offsets into its page.
const (
	lapicLVTTimer = 0x320

	lapicTimerMode     = 3 << 17 // of lapicLVTTimer
	lapicTimerDeadline = 2 << 17
)
