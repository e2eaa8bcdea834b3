package linux

import (
	"testing"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/wss/pagetable"
)

// TestDescriptors decodes the table as the CPU does (Intel SDM volume 3, figure 3-8).
func TestDescriptors(t *testing.T) {
	e := longMode()
	gdt := descriptors(e)
	if len(gdt) != int(e.GDT.Limit)+1 {
		t.Errorf("table of %d bytes, limit %#x", len(gdt), e.GDT.Limit)
	}
	for _, s := range []kvm.Segment{e.CS, e.DS, e.TR} {
		d := le.Uint64(gdt[s.Selector:])
		bit := func(n int) uint8 { return uint8(d >> n & 1) }
		got := kvm.Segment{
			Selector: s.Selector,
			Base:     d>>16&0xff_ffff | d>>56<<24,
			Limit:    uint32(d&0xffff | d>>48&0xf<<16),
			Type:     uint8(d >> 40 & 0xf),
			S:        bit(44),
			DPL:      uint8(d >> 45 & 3),
			Present:  bit(47),
			L:        bit(53),
			DB:       bit(54),
			G:        bit(55),
		}
		if got.G != 0 {
			got.Limit = got.Limit<<12 | 0xfff
		}
		if got.S == 0 {
			got.Base |= le.Uint64(gdt[s.Selector+8:]) << 32
		}
		if got != s || s.Present != 1 || s.DPL != 0 {
			t.Errorf("descriptor %#x is %+v, want %+v, present, level 0", d, got, s)
		}
	}
	if le.Uint64(gdt) != 0 {
		t.Error("the null descriptor is not")
	}
	// The numbers of Linux' own boot code, boot/compressed/head_64.S.
	if code := le.Uint64(gdt[0x10:]); code != 0x00af_9b00_0000_ffff {
		t.Errorf("__BOOT_CS is %#x", code)
	}
	if data := le.Uint64(gdt[0x18:]); data != 0x00cf_9300_0000_ffff {
		t.Errorf("__BOOT_DS is %#x", data)
	}
}

// TestDescriptorBases: bases that need all of their pieces.
func TestDescriptorBases(t *testing.T) {
	e := longMode()
	e.TR.Base, e.TR.Limit, e.TR.G = 0x1234_5678_9abc_def0, 0xf_1234, 0
	gdt := descriptors(e)
	if low, high := le.Uint64(gdt[selTask:]), le.Uint64(gdt[selTask+8:]); high != 0x1234_5678 ||
		low != 0x9a0f_8bbc_def0_1234 {
		t.Errorf("%#x %#x", low, high)
	}
}

// TestIdentityMap walks the tables as the CPU does.
func TestIdentityMap(t *testing.T) {
	m := newGuestMemory(ramOf(mib))
	if _, err := m.WriteAt(identityMap(), tablesAddr); err != nil {
		t.Fatal(err)
	}
	walk := func(addr uint64) (uint64, bool) {
		table := longMode().CR3
		for _, shift := range []int{39, 30, 21} {
			entry := le.Uint64(m.read(table+addr>>shift&0x1ff*8, 8))
			if entry&3 != 3 {
				return 0, false
			}
			table = entry & 0x000f_ffff_ffff_f000
			if entry&pagetable.Large != 0 {
				return table + addr&(1<<shift-1), shift == 21
			}
		}
		return 0, false
	}
	for addr := uint64(0); addr < 4*gib; addr += 2*mib - 4099 {
		if got, ok := walk(addr); !ok || got != addr {
			t.Fatalf("%#x is mapped to %#x, %t", addr, got, ok)
		}
	}
	if got, ok := walk(4*gib - 1); !ok || got != 4*gib-1 {
		t.Errorf("the last byte is mapped to %#x, %t", got, ok)
	}
	for _, addr := range []uint64{4 * gib, 512 * gib, 1 << 47} {
		if got, ok := walk(addr); ok {
			t.Errorf("%#x is mapped to %#x", addr, got)
		}
	}
}

// TestLowMemory: what the loader puts below 1 MiB does not overlap, and is in usable memory.
func TestLowMemory(t *testing.T) {
	m, err := newMemoryMap(ramOf(2 * mib))
	if err != nil {
		t.Fatal(err)
	}
	pieces := []Range{{gdtAddr, gdtSize}, {taskAddr, taskSize}, {zeroPageAddr, zeroPageSize},
		{0x8000, stackTop - 0x8000}, {tablesAddr, uint64(len(identityMap()))}, {cmdlineAddr, maxCmdline}}
	for i, p := range pieces {
		if !inside(m.usable, p) {
			t.Errorf("%#x is not usable", p)
		}
		for _, q := range pieces[:i] {
			if overlap(p, q) {
				t.Errorf("%#x and %#x overlap", p, q)
			}
		}
	}
}
