package kvm

// Bits of the control registers that a VMM sets or looks at; Intel's manual, volume 3, 2.5 and 2.2.1.
const (
	CR0PE = 1 << 0
	CR0MP = 1 << 1
	CR0ET = 1 << 4
	CR0NE = 1 << 5
	CR0WP = 1 << 16
	CR0PG = 1 << 31

	CR4PAE        = 1 << 5
	CR4PGE        = 1 << 7 // global translations outlive a change of CR3
	CR4OSFXSR     = 1 << 9
	CR4OSXMMEXCPT = 1 << 10
	CR4OSXSAVE    = 1 << 18

	RFLAGSFixed = 1 << 1 // always set
	RFLAGSIF    = 1 << 9 // interrupts are taken
	RFLAGSIOPL3 = 3 << 12

	EFERSCE = 1 << 0
	EFERLME = 1 << 8
	EFERLMA = 1 << 10
	EFERNXE = 1 << 11
)
