package guestmem

import (
	"bytes"
	"encoding/binary"
)

// magic is a format that is known by bytes at its beginning.
type magic struct {
	at    int
	bytes string
	// format is what it is, in words.
	format string
	// do is what to do with one that is not read here; empty if it is read.
	do string
	// kind is how it is read.
	kind kind
}

// kind is a format that is read here.
type kind int

const (
	refused kind = iota
	elfFile
	limeFile
	qemuFile
	libvirtFile
	vmwareState
	firecrackerState
	gzipFile
	xzFile
	zstdFile
	bzip2File
	lzopFile
)

// headBytes is how much of a file's beginning is looked at.
const headBytes = 4096

// disk is what to do with the image of a disk.
const disk = "this holds a disk, not memory; save the memory of the running machine, for example with " +
	`"virsh save", QEMU's "migrate" or "dump-guest-memory"`

// pair is what to do with one of two files that belong together.
const pair = "its memory is in another file: give thaw the directory that has both"

// magics are all formats that are known by their first bytes. They are looked for in this order.
func magics() []magic {
	return []magic{
		{0, "\x7fELF", "an ELF file", "", elfFile},
		{0, "EMiL", "a LiME dump", "", limeFile},
		{0, "QEVM", "a migration stream of QEMU", "", qemuFile},
		{0, "LibvirtQemudSave", "a save file of libvirt", "", libvirtFile},
		{0, "LibvirtQemudPart", "a save file of libvirt", "", libvirtFile},
		{0, "\xd0\xbe\xd2\xbe", "a state file of VMware", pair, vmwareState},
		{0, "\xd1\xba\xd1\xba", "a state file of VMware", pair, vmwareState},
		{0, "\xd2\xbe\xd2\xbe", "a state file of VMware", pair, vmwareState},
		{0, "\xd3\xbe\xd3\xbe", "a state file of VMware", pair, vmwareState},
		{0, "\x00\x00\x64\x86\x84\x19\x10\x07", "a vmstate of Firecracker", pair, firecrackerState},
		{0, "\x00\x00\xaa\xaa\x84\x19\x10\x07", "a vmstate of Firecracker", pair, firecrackerState},
		{0, "\x1f\x8b\x08", "compressed by gzip", "", gzipFile},
		{0, "\xfd7zXZ\x00", "compressed by xz", "", xzFile},
		{0, "\x28\xb5\x2f\xfd", "compressed by zstd", "", zstdFile},
		{0, "BZh", "compressed by bzip2", "", bzip2File},
		{0, lzopMagic, "compressed by lzop", "", lzopFile},

		{0, "\x04\x22\x4d\x18", "compressed by lz4",
			`"lz4 -dc FILE | thaw import STORE - --name NAME" imports what is in it`, refused},
		{0, "KDUMP   ", "a kdump-compressed dump",
			`dump it again in ELF format: "virsh dump --memory-only --format elf", makedumpfile -E`, refused},
		{0, "makedumpfile", "a flattened dump of makedumpfile",
			"dump it again in ELF format: in QEMU, dump-guest-memory without a compressed format; " +
				"makedumpfile -E, and without -F", refused},
		{0, "DISKDUMP", "a diskdump", "dump it again in ELF format (makedumpfile -E)", refused},
		{0, "AVML", "a compressed LiME dump of AVML", `"avml-convert FILE FILE.lime" makes a LiME dump of it`,
			refused},
		{0, "PAGEDU", "a crash dump of Windows",
			`"vol -f FILE layerwriter" (Volatility 3) writes its memory as a bare file`, refused},
		{0, "MDMP", "a minidump", "it has memory of a process, not that of a machine", refused},
		{0, "\x7fVirtualBox SavedState", "a saved state of VirtualBox",
			`while the machine runs, "VBoxManage debugvm NAME dumpvmcore --filename FILE" writes an ELF core`,
			refused},
		{0, "Xen saved domain", "a save file of Xen", `"xl dump-core" writes an ELF core of a running domain`,
			refused},
		{0, "LinuxGuestRecord", "a save file of Xen", `"xl dump-core" writes an ELF core of a running domain`,
			refused},
		{0, "QFI\xfb", "a disk image (qcow2)", disk, refused},
		{0, "KDMV", "a disk image (VMDK)", disk, refused},
		{0, "COWD", "a disk image (VMDK)", disk, refused},
		{0, "# Disk DescriptorFile", "a disk image (VMDK)", disk, refused},
		{0, "vhdxfile", "a disk image (VHDX)", disk, refused},
		{0, "conectix", "a disk image (VHD)", disk, refused},
		{0, "QED\x00", "a disk image (QED)", disk, refused},
		{64, "\x7f\x10\xda\xbe", "a disk image (VDI)", disk, refused},
		{257, "ustar", "a tar archive", `unpack it first: "tar -xf FILE -C DIRECTORY"`, refused},
		{0, "PK\x03\x04", "a zip archive", "unpack it first", refused},
		{0, "7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first", refused},
		{0, "thawpack", "a pack of a thaw store", "give the store to thaw, not a file of it", refused},
		{0, "thaw-working-set", "a working set", `"thaw ws import" gives it to a checkpoint`, refused},
	}
}

// recognise finds the format of a file by its first bytes; nil if there is none that is known.
func recognise(head []byte) *magic {
	for _, m := range magics() {
		if len(head) >= m.at+len(m.bytes) && string(head[m.at:m.at+len(m.bytes)]) == m.bytes {
			if m.kind == elfFile && !isELF(head) || m.kind == bzip2File && !isBzip2(head) {
				continue
			}
			return &m
		}
	}
	return nil
}

// isELF looks at more than the magic, because a refusal must not be by chance.
func isELF(head []byte) bool {
	return len(head) >= 20 && head[4] >= 1 && head[4] <= 2 && head[5] >= 1 && head[5] <= 2 && head[6] == 1
}

// isBzip2 looks at the magic of the first block, or of the end.
func isBzip2(head []byte) bool {
	return len(head) >= 10 && head[3] >= '1' && head[3] <= '9' &&
		(bytes.Equal(head[4:10], []byte("1AY&SY")) ||
			binary.BigEndian.Uint32(head[4:8]) == 0x17724538)
}
