// Package linux puts a Linux kernel into guest memory and says with which registers a vCPU enters
// it: the 64-bit boot protocol of x86. It plays the part that firmware and boot loader have on a
// PC, and writes nothing but bytes at guest physical addresses: [Load] takes an [io.WriterAt] and
// gives an [Entry] of plain numbers.
//
// # Why the 64-bit protocol
//
// A bzImage has three entries. The 16-bit one calls a BIOS, which is not there; the 32-bit one is
// for loaders of another time. The 64-bit one needs the most preparation by the loader, and the
// least by the machine: no real mode, no BIOS, no mode switch before the kernel's own code runs.
// An ELF vmlinux, the same kernel before it was compressed, is entered in the same way.
//
// # Guest memory at the entry
//
//	0x0000_0500  GDT                                           CPU; kernel until it has its own
//	0x0000_0600  task state segment, zeros                     CPU: VT-x wants TR to be valid
//	0x0000_7000  zero page: struct boot_params                 kernel; RSI points at it
//	0x0000_8000  stack, up to 0x8ff0                           kernel until it has its own
//	0x0000_9000  page tables: 4 GiB mapped to themselves       CPU; kernel until it has its own
//	0x0002_0000  command line, at most 2048 bytes with its 0   kernel
//	0x0009_fc00  reserved: extended BIOS data area of a PC     nobody
//	0x000a_0000  no memory in the map: screen, option ROMs     nobody
//	0x000e_0000  reserved: ACPI tables (package acpi)          kernel, all the time
//	0x000f_fff0  reserved: acpi.Restart, the rest of a BIOS    kernel that restarts
//	0x0010_0000  RAM
//	0x0100_0000  kernel: setup_header.pref_address, from here  the entry is 0x200 further on
//	             init_size bytes are its own
//	...          RAM
//	             initrd, as high as setup_header.initrd_addr_max allows
//	0xc000_0000  hole: devices, interrupt controllers (package vmm decides)
//	0x1_0000_0000  RAM again; the initrd if it has no place below, and the kernel allows it
//
// What is below 1 MiB lies in pages that the memory map gives to the kernel as RAM. It reads them
// before it hands out pages, and the room is its own then.
//
// # The zero page
//
// Everything that the kernel learns of the machine before ACPI: its own setup header, copied back
// with the loader's answers in it, where command line and initrd are, where the ACPI root pointer
// is, and the memory map in the words of the BIOS call that it replaces, e820. Every usable range
// of RAM is there, and what is reserved; an address that is in no entry is not memory.
//
// # What a kernel needs
//
// A kernel for these machines has, built in or as modules of its initrd:
//
//	CONFIG_64BIT                              the 64-bit entry; relocatable or not does not matter
//	CONFIG_BLK_DEV_INITRD                     if there is an initrd
//	CONFIG_SMP, CONFIG_X86_LOCAL_APIC, CONFIG_X86_IO_APIC
//	CONFIG_ACPI, CONFIG_PNP                   CPUs, interrupts and devices are found by ACPI only
//	CONFIG_SERIAL_8250, _8250_PNP, _8250_CONSOLE      console=ttyS0
//	CONFIG_VIRTIO_MMIO, CONFIG_VIRTIO_BLK     disks; the option _MMIO_CMDLINE_DEVICES is not needed
//	CONFIG_HW_RANDOM_VIRTIO, CONFIG_VMGENID   random numbers of its own after a restore
//	CONFIG_PARAVIRT, CONFIG_KVM_GUEST         kvmclock: the hardware that it would otherwise
//	                                          measure the TSC with is not there
//
// Linux 5.0 and later take the ACPI root pointer from the zero page; older ones find it by
// searching from 0xe0000, where it is. The initrd above 4 GiB needs Linux 3.8, as does the 64-bit
// entry itself (protocol 2.12).
//
// # Hostile files
//
// A kernel file is data of somebody else. Every length and address in it is checked against the
// file's size and the machine's RAM before anything is written; what is allocated is no more than the
// file has. Large parts go through a buffer of fixed size.
//
// Sources: Documentation/arch/x86/boot.rst ("64-bit Boot Protocol", "Details of Header Fields"),
// Documentation/arch/x86/zero-page.rst and arch/x86/include/uapi/asm/bootparam.h of Linux; ELF-64
// Object File Format; Intel SDM volume 3, 3.4.5 (descriptors) and 4.5 (four-level paging).
package linux
