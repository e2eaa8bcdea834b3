package state

import (
	"path/filepath"
	"testing"
)

// sampleVersions are the directories of testdata: one checkpoint of each version of the state file
// that was ever written, its memory compressed.
func sampleVersions(t testing.TB) []string {
	t.Helper()
	dirs, err := filepath.Glob("../testdata/[0-9]*.[0-9]*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	return dirs
}

// Every version stays readable, with the state that is known to be in it.
func TestSamplesAreReadable(t *testing.T) {
	newest := false
	for _, sample := range sampleVersions(t) {
		version := filepath.Base(sample)
		newest = newest || version == "2.0"
		in, err := Inspect(sample)
		if err != nil || len(in.Problems) > 0 || in.Version != version {
			t.Errorf("%s: %v %+v", sample, err, in)
			continue
		}
		list, err := readFile(filepath.Join(sample, StateFile))
		if err != nil {
			t.Fatal(err)
		}
		s, err := decodeMachine(list)
		if err != nil {
			t.Errorf("%s: %v", sample, err)
			continue
		}
		if s.Facts.IRQChip == (version == "1.0") || s.Ports.Ready != 1 || s.Ports.Done == 0 ||
			s.Facts.Guest.Program == "" {
			t.Errorf("%s: %+v %+v", sample, s.Facts, s.Ports)
		}
		for i, v := range s.VCPUs {
			if v.Regs.RIP < 0x10000 || v.Regs.RIP >= 0x20000 || vendor(v.CPUID) == "" ||
				len(v.MSRs) == 0 {
				t.Errorf("%s: vCPU %d: %+v", sample, i, v.Regs)
			}
		}
	}
	if !newest {
		t.Errorf("there is no sample of version %d.%d", stateMajor, stateMinor)
	}
}

// A machine of version 1 has no interrupt controllers, before and after it is saved again.
func TestVersion1HasNoIRQChip(t *testing.T) {
	list, err := readFile("../testdata/1.0/state")
	if err != nil {
		t.Fatal(err)
	}
	s, err := decodeMachine(list)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.sections()
	if err != nil {
		t.Fatal(err)
	}
	for _, sec := range again {
		switch sec.tag {
		case "LAPIC", "IRQCHIP", "PIT2", "CLOCK":
			t.Errorf("section %s", sec.tag)
		}
	}
	// And a section of that kind is not for it.
	lapic := section{tag: "LAPIC", required: true, data: make([]byte, 1024)}
	_, err = decodeMachine(append(again, lapic))
	wantStateError(t, "a local APIC in version 1", err)
}
