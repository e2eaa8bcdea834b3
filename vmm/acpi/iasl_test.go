package acpi

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// iasl runs ACPICA's compiler in a directory, and gives what it printed.
func iasl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "iasl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("iasl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// roundTrip disassembles a table and compiles the result. It gives the source, and the table that
// came out.
func roundTrip(t *testing.T, signature string, table []byte) (source string, again []byte) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "t.dat"), table, 0o644); err != nil {
		t.Fatal(err)
	}
	out := iasl(t, dir, "-d", "t.dat")
	bad := regexp.MustCompile(`(?i).*(error|warning|invalid|incorrect|unknown).*`)
	if m := bad.FindString(out); m != "" {
		t.Errorf("%s: disassembling: %s", signature, m)
	}
	// -ve would hide warnings and remarks; they are wanted.
	out = iasl(t, dir, "-p", "again", "t.dsl")
	if !strings.Contains(out, "0 Errors, 0 Warnings, 0 Remarks") ||
		strings.Contains(out, "Optimizations") && !strings.Contains(out, "0 Optimizations") {
		t.Errorf("%s: compiling:\n%s", signature, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "t.dsl"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err = os.ReadFile(filepath.Join(dir, "again.aml")); err != nil {
		t.Fatal(err)
	}
	return string(text), again
}

// TestIASL lets ACPICA, whose code Linux has too, read every table and write it once more: the same
// bytes must come out, but for the compiler's own name in the header.
func TestIASL(t *testing.T) {
	if _, err := exec.LookPath("iasl"); err != nil {
		t.Skipf("needs iasl (apt-get install acpica-tools): %v", err)
	}
	one := machine()
	one.CPUs = 1
	for name, c := range map[string]Config{"full": machine(), "many": manyDevices(), "one": one} {
		t.Run(name, func(t *testing.T) {
			sources := map[string]string{}
			for signature, table := range find(t, c, build(t, c)) {
				source, again := roundTrip(t, signature, table)
				sources[signature] = source
				if len(again) != len(table) || !bytes.Equal(again[headerSize:], table[headerSize:]) {
					t.Errorf("%s: % x\ncame back as % x", signature, table, again)
				}
			}
			checkSources(t, c, sources)
		})
	}
}

// checkSources looks for what the guest must find.
func checkSources(t *testing.T, c Config, sources map[string]string) {
	t.Helper()
	spaces := regexp.MustCompile(`\s+`)
	comments := regexp.MustCompile(`//.*|/\*[^*]*\*/`)
	for signature, s := range sources {
		if signature == "DSDT" {
			s = comments.ReplaceAllString(s, "")
		}
		sources[signature] = spaces.ReplaceAllString(s, " ")
	}
	want := map[string][]string{
		"DSDT": {
			`Name (_S5, Package (0x04) { 0x05, Zero, Zero, Zero })`,
			`Device (COM1) { Name (_HID, EisaId ("PNP0501") )`,
			`IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08, ) ` +
				`Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, ) { 0x00000004, }`,
			`Device (PS2K) { Name (_HID, EisaId ("PNP0303") )`,
			`Device (V001) { Name (_HID, "LNRO0005") Name (_UID, One) Name (_CCA, One)`,
			`Memory32Fixed (ReadWrite, 0xD0000000, 0x00001000, ) ` +
				`Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive, ,, )`,
			`Device (VGEN) { Name (_HID, "THAW0001") Name (_CID, "VM_Gen_Counter")`,
			`Name (ADDR, Package (0x02) { 0x000FE000, Zero })`,
			`Device (GED) { Name (_HID, "ACPI0013" )`,
			`Method (_EVT, 1, Serialized) { If ((Arg0 == 0x09)) { Notify (VGEN, 0x80) } }`,
		},
		"FACP": {
			`Hardware Reduced (V5) : 1`, `Reset Register Supported (V2) : 1`,
			`8042 Present on ports 60/64 (V2) : 1`, `VGA Not Present (V4) : 1`,
			`CMOS RTC Not Present (V5) : 1`, `MSI Not Supported (V4) : 0`,
			`Sleep Control Register : [Generic Address Structure] [0F4h 0244 1] Space ID : 01 [SystemIO]`,
		},
		"APIC": {`[I/O APIC]`, `[Interrupt Source Override]`, `[Local APIC NMI]`},
	}
	for signature, list := range want {
		for _, w := range list {
			if !strings.Contains(sources[signature], w) {
				t.Errorf("%s lacks %s", signature, w)
			}
		}
	}
	if n := strings.Count(sources["APIC"], "[Processor Local APIC]"); n != c.CPUs {
		t.Errorf("%d local APICs for %d CPUs", n, c.CPUs)
	}
	if n := strings.Count(sources["DSDT"], `"LNRO0005"`); n != len(c.Virtio) {
		t.Errorf("%d virtio devices of %d", n, len(c.Virtio))
	}
}
