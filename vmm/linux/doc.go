// Package linux loads a Linux kernel into guest memory and returns the registers for its entry, by the
// 64-bit boot protocol of x86. It does what firmware and boot loader do on a PC. It only writes bytes
// at guest physical addresses: [Load] takes an [io.WriterAt] and returns an [Entry].
//
// # Why the 64-bit protocol
//
// A bzImage has three entries. The 16-bit entry needs a BIOS; the 32-bit entry is for older loaders.
// The 64-bit entry needs more preparation by the loader, but less from the machine: no real mode, no
// BIOS, and no mode switch before the kernel's own code runs. An ELF vmlinux, the same kernel
// uncompressed, is entered in the same way.
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
// The boot data below 1 MiB is in pages that the memory map lists as usable RAM. The kernel reads it
// before it allocates pages, and then reuses the memory.
//
// # The zero page
//
// It contains what the kernel needs before ACPI: a copy of its setup header with the loader's fields
// filled in, the addresses of command line, initrd and ACPI root pointer, and the memory map in the
// format of the BIOS call e820. The map lists all usable and reserved ranges of RAM; an address in no
// entry is not memory.
//
// # What a kernel needs
//
// A kernel for these machines needs, built in or as modules in its initrd:
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
// Linux 5.0 and later read the ACPI root pointer from the zero page; older versions search for it from
// 0xe0000 on, where it is. An initrd above 4 GiB and the 64-bit entry itself (protocol 2.12) need Linux
// 3.8.
//
// # Hostile files
//
// A kernel file is not trusted. Every length and address in it is checked against the file's size and
// the machine's RAM before anything is written, and no allocation is larger than the file. Large parts
// are copied through a buffer of fixed size.
//
// Sources: Documentation/arch/x86/boot.rst ("64-bit Boot Protocol", "Details of Header Fields"),
// Documentation/arch/x86/zero-page.rst and arch/x86/include/uapi/asm/bootparam.h of Linux; ELF-64
// Object File Format; Intel SDM volume 3, 3.4.5 (descriptors) and 4.5 (four-level paging).
package linux
