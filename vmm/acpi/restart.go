package acpi

// RestartAddr is where a PC's BIOS begins, ffff:0000.
const RestartAddr = 0xf_fff0

// Restart is code for [RestartAddr]: all that is left of a BIOS. It resets the machine by the reset
// register at a port.
//
// It is there for Linux, which on hardware-reduced machines does not use ACPI's reset register
// unless it is told to (reboot=acpi). It takes them for EFI machines, finds no EFI, goes back to
// real mode and jumps to the BIOS; without one it would run through memory until something breaks.
func Restart(reset uint16) []byte {
	return []byte{
		0xba, byte(reset), byte(reset >> 8), // mov dx, reset
		0xb0, ResetValue, // mov al, ResetValue
		0xee,       // out dx, al
		0xf4,       // hlt
		0xeb, 0xfd, // jmp to the hlt
	}
}
