package acpi

import (
	"bytes"
	"strings"
	"testing"
)

// machine is a machine with everything.
func machine() Config {
	return Config{
		Base: 0xe_0000, Size: 0x1_e000,
		CPUs: 2, LocalAPIC: 0xfee0_0000, IOAPIC: 0xfec0_0000, TimerGSI: 2,
		Serial: Ports{0x3f8, 4}, Keyboard: Ports{0x60, 1},
		SleepControl: 0x600, SleepStatus: 0x601, Reset: 0x602,
		Virtio:  []MMIO{{0xd000_0000, 0x1000, 5}, {0xd000_1000, 0x1000, 6}, {0xd000_2000, 0x1000, 16}},
		VMGenID: 0xf_e000, EventGSI: 9,
	}
}

// manyDevices is a machine with as many CPUs and devices as there are.
func manyDevices() Config {
	c := machine()
	c.CPUs, c.Virtio = MaxCPUs, nil
	for gsi := range uint32(24) {
		switch gsi {
		case c.TimerGSI, c.Serial.GSI, c.Keyboard.GSI, c.EventGSI:
		default:
			c.Virtio = append(c.Virtio, MMIO{0xd000_0000 + gsi*0x1000, 0x1000, gsi})
		}
	}
	return c
}

func build(t testing.TB, c Config) []byte {
	t.Helper()
	b, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// find follows the pointers as a guest does: RSDP, XSDT, FADT, DSDT. It checks of each table what
// all have, and gives them by signature.
func find(t testing.TB, c Config, b []byte) map[string][]byte {
	t.Helper()
	at := func(addr uint64) []byte {
		if addr < c.Base || addr >= c.Base+uint64(len(b)) || addr%16 != 0 {
			t.Fatalf("a table at %#x: the tables are at %#x, %d bytes", addr, c.Base, len(b))
		}
		rest := b[addr-c.Base:]
		table := rest[:le.Uint32(rest[4:])]
		if sum(table) != 0 {
			t.Errorf("%s: sum of bytes %#x", table[:4], sum(table))
		}
		return table
	}
	if string(b[:8]) != "RSD PTR " || sum(b[:20]) != 0 || sum(b[:36]) != 0 || b[15] != 2 ||
		le.Uint32(b[20:]) != 36 || le.Uint32(b[16:]) != 0 {
		t.Errorf("RSDP: % x", b[:36])
	}
	tables := map[string][]byte{"XSDT": at(le.Uint64(b[24:]))}
	for list := tables["XSDT"][headerSize:]; len(list) > 0; list = list[8:] {
		table := at(le.Uint64(list))
		tables[string(table[:4])] = table
	}
	tables["DSDT"] = at(le.Uint64(tables["FACP"][140:]))
	for signature, table := range tables {
		if string(table[:4]) != signature || string(table[10:16]) != "THAW  " {
			t.Errorf("%s: header % x", signature, table[:headerSize])
		}
	}
	return tables
}

func sum(b []byte) (s byte) {
	for _, x := range b {
		s += x
	}
	return s
}

func TestTables(t *testing.T) {
	small := machine()
	small.CPUs, small.Virtio, small.VMGenID, small.EventGSI, small.Keyboard = 1, nil, 0, 0, Ports{}
	for name, c := range map[string]Config{"small": small, "full": machine(), "many": manyDevices()} {
		t.Run(name, func(t *testing.T) {
			b := build(t, c)
			tables := find(t, c, b)
			if len(tables) != 4 {
				t.Errorf("%d tables, want XSDT, FACP, APIC, DSDT", len(tables))
			}
			if n := len(tables["FACP"]); n != 276 {
				t.Errorf("FADT of %d bytes, want 276", n)
			}
			checkMADT(t, c, tables["APIC"])
			if again := build(t, c); !bytes.Equal(b, again) {
				t.Error("the same machine has other tables the second time")
			}
		})
	}
}

// checkMADT walks the entries.
func checkMADT(t *testing.T, c Config, table []byte) {
	t.Helper()
	if got := le.Uint32(table[36:]); got != c.LocalAPIC {
		t.Errorf("local APIC at %#x", got)
	}
	count := map[byte]int{}
	for rest := table[44:]; len(rest) > 0; rest = rest[rest[1]:] {
		if rest[0] == 0 && (rest[2] != byte(count[0]) || rest[3] != byte(count[0]) || rest[4] != 1) {
			t.Errorf("local APIC %d: % x", count[0], rest[:8])
		}
		if rest[0] == 1 && (le.Uint32(rest[4:]) != c.IOAPIC || le.Uint32(rest[8:]) != 0) {
			t.Errorf("I/O APIC: % x", rest[:12])
		}
		if rest[0] == 2 && (rest[2] != 0 || rest[3] != 0 || le.Uint32(rest[4:]) != 2) {
			t.Errorf("override: % x", rest[:10])
		}
		count[rest[0]]++
	}
	if count[0] != c.CPUs || count[1] != 1 || count[2] != 1 || count[4] != 1 || len(count) != 4 {
		t.Errorf("entries by type: %v", count)
	}
}

// TestTimerNotRerouted: KVM wires the PIT to input 0 by itself, and then there is no override.
func TestTimerNotRerouted(t *testing.T) {
	c := machine()
	c.TimerGSI = 0
	table := find(t, c, build(t, c))["APIC"]
	for rest := table[44:]; len(rest) > 0; rest = rest[rest[1]:] {
		if rest[0] == 2 {
			t.Errorf("an override: % x", rest[:10])
		}
	}
}

// TestFADT has the offsets of ACPI 6.5, table 5.9, in numbers.
func TestFADT(t *testing.T) {
	c := machine()
	table := find(t, c, build(t, c))["FACP"]
	if flags := le.Uint32(table[112:]); flags != 1<<0|1<<4|1<<5|1<<10|1<<20 {
		t.Errorf("flags %#x", flags)
	}
	if arch := le.Uint16(table[109:]); arch != 1<<0|1<<1|1<<2|1<<5 {
		t.Errorf("boot architecture flags %#x", arch)
	}
	if table[8] != 6 || table[131] != 5 {
		t.Errorf("version %d.%d", table[8], table[131])
	}
	if table[128] != ResetValue {
		t.Errorf("reset value %#x", table[128])
	}
	for off, port := range map[int]uint16{116: c.Reset, 244: c.SleepControl, 256: c.SleepStatus} {
		want := append([]byte{1, 8, 0, 1}, byte(port), byte(port>>8), 0, 0, 0, 0, 0, 0)
		if got := table[off : off+12]; !bytes.Equal(got, want) {
			t.Errorf("register at %d: % x, want % x", off, got, want)
		}
	}
	c.Keyboard = Ports{}
	if arch := le.Uint16(find(t, c, build(t, c))["FACP"][109:]); arch&(1<<1) != 0 {
		t.Error("8042 present, without one")
	}
}

func TestRefusals(t *testing.T) {
	for _, cpus := range []int{0, MaxCPUs + 1} {
		c := machine()
		c.CPUs = cpus
		if _, err := Build(c); err == nil || !strings.Contains(err.Error(), "1 to 255") {
			t.Errorf("%d CPUs: %v", cpus, err)
		}
	}
}

// TestRoom: tables fit exactly or not at all.
func TestRoom(t *testing.T) {
	c := machine()
	c.Size = uint64(len(build(t, c)))
	build(t, c)
	c.Size--
	if _, err := Build(c); err == nil {
		t.Error("tables larger than their region")
	}
}

func TestRestart(t *testing.T) {
	code := Restart(0x602)
	if len(code) > 1<<20-RestartAddr {
		t.Errorf("%d bytes of code: 1 MiB is %d bytes away", len(code), 1<<20-RestartAddr)
	}
	if want := []byte{0xba, 0x02, 0x06, 0xb0, ResetValue, 0xee}; !bytes.HasPrefix(code, want) {
		t.Errorf("% x, want % x at first", code, want)
	}
}
