package linux

import "fmt"

// Offsets in the zero page, struct boot_params, outside of the setup header.
const (
	bpACPIRSDPAddr    = 0x070 // u64
	bpExtRamdiskImage = 0x0c0 // u32: upper half of ramdisk_image
	bpExtRamdiskSize  = 0x0c4 // u32: upper half of ramdisk_size
	bpE820Entries     = 0x1e8 // u8
	bpE820Table       = 0x2d0

	zeroPageSize   = 4096
	maxE820Entries = 128
	e820EntrySize  = 20
)

// zeroPage returns the zero page (struct boot_params).
//
// The end of the heap is only for the setup code, which does not run. It is set as other loaders do, so
// that the header is complete.
func zeroPage(k *kernel, m memoryMap, initrd Range, c Config) ([]byte, error) {
	if err := checkCmdline(c.Cmdline, k.cmdlineMax); err != nil {
		return nil, err
	}
	b := make([]byte, zeroPageSize)
	copy(b[hdrStart:hdrEnd], k.setup)
	b[hdrTypeOfLoader] = loaderUnknown
	b[hdrLoadFlags] |= canUseHeap
	le.PutUint16(b[hdrHeapEndPtr:], 0xfe00)
	le.PutUint32(b[hdrCode32Start:], uint32(k.memory.Start))
	le.PutUint32(b[hdrCmdLinePtr:], cmdlineAddr)
	le.PutUint32(b[hdrRamdiskImage:], uint32(initrd.Start))
	le.PutUint32(b[hdrRamdiskSize:], uint32(initrd.Size))
	le.PutUint32(b[bpExtRamdiskImage:], uint32(initrd.Start>>32))
	le.PutUint32(b[bpExtRamdiskSize:], uint32(initrd.Size>>32))
	le.PutUint64(b[bpACPIRSDPAddr:], c.RSDP)
	if len(m.e820) > maxE820Entries {
		return nil, fmt.Errorf("the memory map has %d entries, and the kernel accepts at most %d", len(m.e820),
			maxE820Entries)
	}
	b[bpE820Entries] = byte(len(m.e820))
	at := b[bpE820Table:]
	for _, e := range m.e820 {
		le.PutUint64(at, e.Start)
		le.PutUint64(at[8:], e.Size)
		le.PutUint32(at[16:], uint32(e.kind))
		at = at[e820EntrySize:]
	}
	return b, nil
}
