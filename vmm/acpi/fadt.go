package acpi

// address is ACPI's generic address structure.
type address struct {
	Space, Width, Offset, Access uint8 // width and offset in bits
	Address                      uint64
}

// port is a register of one byte in I/O space.
func port(p uint16) address {
	const systemIO, byteAccess = 1, 1
	return address{Space: systemIO, Width: 8, Access: byteAccess, Address: uint64(p)}
}

// fadtBody is the fixed ACPI description table without its header (ACPI 6.5, 5.2.9). Most of it
// describes hardware that this profile does not have, and is 0.
type fadtBody struct {
	_                         [73]byte // FACS to Century
	BootArchitecture          uint16
	_                         uint8
	Flags                     uint32
	Reset                     address
	ResetValue                uint8
	_                         uint16 // of ARM
	Minor                     uint8
	_                         uint64 // FACS
	XDSDT                     uint64
	_                         [8]address // event, control and timer blocks
	SleepControl, SleepStatus address
	Hypervisor                [8]byte
}

// Revision of the table: ACPI 6.5.
const (
	fadtRevision = 6
	fadtMinor    = 5
)

// Bits of the IA-PC boot architecture flags. Bit 3 (no message-signalled interrupts) is not set.
const (
	bootLegacyDevices = 1 << 0 // a serial port as on a PC
	bootKeyboard      = 1 << 1 // 8042 at 0x60 and 0x64
	bootNoVGA         = 1 << 2 // no VGA at 0xa0000
	bootNoCMOSClock   = 1 << 5 // no clock at port 0x70; kvmclock has the time of day
)

// Bits of the fixed feature flags.
const (
	fixedWBINVD    = 1 << 0      // the WBINVD instruction works, as on every CPU since the 486
	fixedNoButtons = 1<<4 | 1<<5 // no power button and no sleep button in fixed hardware
	fixedReset     = 1 << 10     // the reset register is there
	fixedReduced   = 1 << 20     // hardware-reduced ACPI
)

func fadt(c Config, dsdt uint64) []byte {
	f := fadtBody{
		BootArchitecture: bootLegacyDevices | bootNoVGA | bootNoCMOSClock,
		Flags:            fixedWBINVD | fixedNoButtons | fixedReset | fixedReduced,
		Reset:            port(c.Reset),
		ResetValue:       ResetValue,
		Minor:            fadtMinor,
		XDSDT:            dsdt,
		SleepControl:     port(c.SleepControl),
		SleepStatus:      port(c.SleepStatus),
		Hypervisor:       [8]byte{'T', 'H', 'A', 'W'},
	}
	if c.Keyboard != (Ports{}) {
		f.BootArchitecture |= bootKeyboard
	}
	return table("FACP", fadtRevision, pack(f))
}
