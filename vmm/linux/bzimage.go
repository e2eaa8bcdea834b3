package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var le = binary.LittleEndian

// Offsets of the setup header, which are the same in the file and in the zero page.
const (
	hdrStart           = 0x1f1
	hdrSetupSects      = 0x1f1 // u8
	hdrSysSize         = 0x1f4 // u32
	hdrBootFlag        = 0x1fe // u16
	hdrJump            = 0x200 // u16: the second byte gives the header's length
	hdrMagic           = 0x202 // "HdrS"
	hdrVersion         = 0x206 // u16
	hdrTypeOfLoader    = 0x210 // u8
	hdrLoadFlags       = 0x211 // u8
	hdrCode32Start     = 0x214 // u32
	hdrRamdiskImage    = 0x218 // u32
	hdrRamdiskSize     = 0x21c // u32
	hdrHeapEndPtr      = 0x224 // u16
	hdrCmdLinePtr      = 0x228 // u32
	hdrInitrdAddrMax   = 0x22c // u32
	hdrKernelAlignment = 0x230 // u32
	hdrRelocatable     = 0x234 // u8
	hdrXLoadFlags      = 0x236 // u16
	hdrCmdlineSize     = 0x238 // u32
	hdrPrefAddress     = 0x258 // u64
	hdrInitSize        = 0x260 // u32
	hdrEnd             = 0x290 // from here on the zero page has other contents

	headerSize = hdrEnd
)

// Values in the setup header.
const (
	bootFlag      = 0xaa55
	loaderUnknown = 0xff // type_of_loader without a registered number

	loadedHigh = 1 << 0 // loadflags
	canUseHeap = 1 << 7

	xlfKernel64       = 1 << 0 // xloadflags
	xlfLoadedAbove4GB = 1 << 1

	// version64 is the first version with xloadflags (Linux 3.8). In older ones a loader cannot know
	// whether there is a 64-bit entry.
	version64 = 0x020c

	entry64    = 0x200 // offset of the 64-bit entry in the protected-mode part
	sectorSize = 512
)

// parseBzImage reads the setup header. The file has a boot sector and setup code for real mode, which
// is not used here, and then the protected-mode part: the decompressor with the compressed kernel.
func parseBzImage(file *io.SectionReader, head []byte) (*kernel, error) {
	version := le.Uint16(head[hdrVersion:])
	if version < version64 {
		return nil, fmt.Errorf("boot protocol %d.%02d: version 2.12 is needed (Linux 3.8)",
			version>>8, version&0xff)
	}
	xload := le.Uint16(head[hdrXLoadFlags:])
	if xload&xlfKernel64 == 0 {
		return nil, errors.New("it is a 32-bit kernel: these machines need the 64-bit entry " +
			"(CONFIG_X86_64)")
	}
	if head[hdrLoadFlags]&loadedHigh == 0 {
		return nil, errors.New("it is a zImage, to be loaded below 1 MiB: these machines need a bzImage")
	}
	k := &kernel{
		file:       file,
		entry:      entry64,
		initrdMax:  uint64(le.Uint32(head[hdrInitrdAddrMax:])),
		initrdHigh: xload&xlfLoadedAbove4GB != 0,
		cmdlineMax: int(min(le.Uint32(head[hdrCmdlineSize:]), maxCmdline)),
	}
	end := hdrMagic + int(head[hdrJump+1])
	if end < hdrInitSize+4 || end > hdrEnd {
		return nil, fmt.Errorf("the setup header has %d bytes, and must have %d to %d", end-hdrStart,
			hdrInitSize+4-hdrStart, hdrEnd-hdrStart)
	}
	k.setup = head[hdrStart:end]
	if err := k.protectedPart(head); err != nil {
		return nil, err
	}
	return k, k.preferences(head)
}

// protectedPart finds the part of the file that is loaded: everything after the setup sectors. It may
// be more than syssize says, because an EFI signature may follow.
func (k *kernel) protectedPart(head []byte) error {
	sectors := uint64(head[hdrSetupSects])
	if sectors == 0 {
		sectors = 4 // the default of old headers
	}
	start, total := (sectors+1)*sectorSize, uint64(k.file.Size())
	needs := start + max(uint64(le.Uint32(head[hdrSysSize:]))*16, entry64+1)
	if total < needs {
		return fmt.Errorf("the file is truncated: it has %d bytes, and must have %d by its header", total, needs)
	}
	k.segments = []segment{{offset: start, size: total - start}}
	return nil
}

// preferences reads the preferred address of the kernel. It runs at pref_address or above, and needs
// init_size bytes from there on to decompress itself and start.
func (k *kernel) preferences(head []byte) error {
	k.memory = Range{
		Start: le.Uint64(head[hdrPrefAddress:]),
		Size:  max(uint64(le.Uint32(head[hdrInitSize:])), k.segments[0].size),
	}
	if k.memory.Start < mib || k.memory.Start > maxAddress {
		return fmt.Errorf("the preferred address is %#x, and must be from 1 MiB to %#x", k.memory.Start,
			uint64(maxAddress))
	}
	if head[hdrRelocatable] == 0 {
		return nil
	}
	k.align = uint64(le.Uint32(head[hdrKernelAlignment:]))
	if k.align == 0 || k.align&(k.align-1) != 0 {
		return fmt.Errorf("the alignment is %#x, and must be a power of two", k.align)
	}
	return nil
}
