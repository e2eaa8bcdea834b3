package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
)

// sampleState is an invented state with all sections.
func sampleState() Machine {
	v := VCPU{XSave: make([]byte, 1024), CPUID: []kvm.CPUIDEntry{{Function: 1, EAX: 2}},
		LAPIC: new(kvm.LAPIC), MSRs: []kvm.MSREntry{{Index: 0x10, Data: 99}}, TSCKHz: 2_000_000}
	v.Regs.RIP, v.Sregs.CR3, v.XSave[100] = 0x10000, 0x100000, 7
	v.LAPIC.SetRegister(0x80, 0x20)
	chips := &Chips{Clock: kvm.Clock{Clock: 77}}
	for i := range chips.Chips {
		chips.Chips[i].ID = uint32(i)
	}
	f := Facts{Regions: []ram.Region{{GPA: 0, Size: ram.MinMemory}}, VCPUs: 2, IRQChip: true,
		Guest: guest.Spec{Program: "idle"}}
	return Machine{Facts: f, Ports: Ports{Done: 5, PeriodUS: 100}, VCPUs: []VCPU{v, v},
		Chips: chips}
}

func sampleFile(t testing.TB) []byte {
	t.Helper()
	s := sampleState()
	list, err := s.sections()
	if err != nil {
		t.Fatal(err)
	}
	b, err := encodeFile(list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(b []byte) (Machine, error) {
	list, err := decodeFile(b)
	if err != nil {
		return Machine{}, err
	}
	return decodeMachine(list)
}

func TestStateFile(t *testing.T) {
	got, err := parse(sampleFile(t))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sampleState(), got, cmp.AllowUnexported(Machine{}, Facts{})); d != "" {
		t.Error(d)
	}
}

func wantStateError(t *testing.T, what string, err error) {
	t.Helper()
	var bad *FileError
	if !errors.As(err, &bad) {
		t.Errorf("%s: %v, want a FileError", what, err)
	}
}

// Every truncation and every flipped bit is detected.
func TestDamagedStateFile(t *testing.T) {
	whole := sampleFile(t)
	for n := range whole {
		_, err := parse(whole[:n])
		wantStateError(t, "truncated", err)
	}
	for i := range whole {
		b := append([]byte{}, whole...)
		b[i] ^= 1 << (i % 8)
		_, err := parse(b)
		wantStateError(t, "flipped", err)
	}
	_, err := parse(append(append([]byte{}, whole...), 0))
	wantStateError(t, "longer", err)
}

func TestStateSections(t *testing.T) {
	s := sampleState()
	list, err := s.sections()
	if err != nil {
		t.Fatal(err)
	}
	with := func(extra ...section) []section { return append(append([]section{}, list...), extra...) }
	try := func(l []section) error {
		b, err := encodeFile(l)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parse(b)
		return err
	}
	if err := try(with(section{tag: "NEWTHING", data: []byte{1}})); err != nil {
		t.Errorf("unknown optional section: %v", err)
	}
	wantStateError(t, "unknown required section", try(with(section{tag: "NEWTHING", required: true})))
	wantStateError(t, "section of a third vCPU", try(with(section{tag: "REGS", index: 2,
		required: true, data: make([]byte, 144)})))
	wantStateError(t, "double section", try(with(list[2])))
	wantStateError(t, "no sections", try(nil))
	for i := range list {
		without := append(append([]section{}, list[:i]...), list[i+1:]...)
		wantStateError(t, "without "+list[i].tag, try(without))
		short := append([]section{}, list...)
		if len(short[i].data) > 0 && short[i].tag != "XSAVE" {
			short[i].data = short[i].data[:len(short[i].data)-1]
			wantStateError(t, "short "+list[i].tag, try(short))
		}
	}
}

// Versions: older major and newer minor versions are read; newer major versions are refused, with the
// version in the error.
func TestStateVersions(t *testing.T) {
	for _, c := range []struct {
		major, minor uint16
		ok           bool
	}{{0, 9, false}, {1, 0, true}, {1, 7, true}, {stateMajor, 0, true}, {stateMajor, 99, true},
		{stateMajor + 1, 0, false}, {0xffff, 0xffff, false}} {
		b := sampleFile(t)
		binary.LittleEndian.PutUint16(b[10:], c.major)
		binary.LittleEndian.PutUint16(b[12:], c.minor)
		_, err := parse(reseal(b))
		if (err == nil) != c.ok {
			t.Errorf("version %d.%d: %v", c.major, c.minor, err)
		}
		if want := fmt.Sprintf("version %d.%d", c.major, c.minor); !c.ok &&
			!strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("version %d.%d: %v, want %q", c.major, c.minor, err, want)
		}
	}
}

// A file with impossible values is refused before any of them is used.
func TestStateClaims(t *testing.T) {
	for what, change := range map[string]func(b []byte){
		"a section of 4 GiB": func(b []byte) {
			binary.LittleEndian.PutUint32(b[stateHeaderSize+16:], 0xffff_ffff)
		},
		"more sections than there are": func(b []byte) {
			binary.LittleEndian.PutUint16(b[14:], 0xffff)
		},
		"fewer sections than there are": func(b []byte) { binary.LittleEndian.PutUint16(b[14:], 1) },
		"another length": func(b []byte) {
			binary.LittleEndian.PutUint64(b[16:], 1<<62)
		},
		"another architecture": func(b []byte) { binary.LittleEndian.PutUint16(b[8:], 183) },
	} {
		b := sampleFile(t)
		change(b)
		binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
		_, err := parse(b)
		wantStateError(t, what, err)
	}
}

func TestStateLimits(t *testing.T) {
	if _, err := encodeFile([]section{{tag: "X", data: make([]byte, maxSectionSize+1)}}); err == nil {
		t.Error("a section beyond the limit was written")
	}
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil { // sparse
		t.Fatal(err)
	}
	_, err := readFile(path)
	wantStateError(t, "a file of 1 TiB", err)
}

func TestSenselessPorts(t *testing.T) {
	s := sampleState()
	s.Ports.Words = ReportWords + 1
	list, err := s.sections()
	if err != nil {
		t.Fatal(err)
	}
	_, err = decodeMachine(list)
	wantStateError(t, "too many words of a report", err)
}

func TestSenselessFacts(t *testing.T) {
	regions := func(at ...uint64) (list []ram.Region) {
		for ; len(at) > 0; at = at[2:] {
			list = append(list, ram.Region{GPA: at[0], Size: at[1]})
		}
		return list
	}
	for what, change := range map[string]func(*Facts){
		"no vCPU":       func(f *Facts) { f.VCPUs = 0 },
		"many vCPUs":    func(f *Facts) { f.VCPUs = 1 << 30 },
		"no RAM":        func(f *Facts) { f.Regions = nil },
		"huge RAM":      func(f *Facts) { f.Regions = regions(0, 1<<63, 1<<62, 1<<63) },
		"overlap":       func(f *Facts) { f.Regions = regions(0, ram.MinMemory, 0, ram.MinMemory) },
		"beside":        func(f *Facts) { f.Regions = regions(pageSize, ram.MinMemory) },
		"not a page":    func(f *Facts) { f.Regions = regions(0, ram.MinMemory+1) },
		"into the hole": func(f *Facts) { f.Regions = regions(0, 3<<30+ram.MinMemory) },
	} {
		s := sampleState()
		change(&s.Facts)
		list, err := s.sections()
		if err != nil {
			t.Fatal(err)
		}
		_, err = decodeMachine(list)
		wantStateError(t, what, err)
	}
}

// reseal corrects the checksums, counts and lengths of a changed file, as far as possible, so that the
// code after the checksums is tested, too.
func reseal(b []byte) []byte {
	if len(b) < stateHeaderSize {
		return b
	}
	b = append([]byte{}, b...)
	count, at := uint16(0), stateHeaderSize
	for at+sectionSize <= len(b) {
		h := b[at : at+sectionSize]
		room := len(b) - at - sectionSize
		n := min(int(binary.LittleEndian.Uint32(h[16:])), room)
		binary.LittleEndian.PutUint32(h[16:], uint32(n))
		at += sectionSize
		sum := crc32.Update(crc32.Checksum(h[:20], castagnoli), castagnoli, b[at:at+n])
		binary.LittleEndian.PutUint32(h[20:], sum)
		at += n
		count++
	}
	b = b[:at]
	copy(b, stateMagic)
	binary.LittleEndian.PutUint16(b[8:], stateArch)
	binary.LittleEndian.PutUint16(b[14:], count)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(b)))
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

func FuzzState(f *testing.F) {
	f.Add(sampleFile(f))
	f.Add([]byte(stateMagic))
	for _, v := range sampleVersions(f) {
		b, err := os.ReadFile(filepath.Join(v, StateFile))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, reseal(b)} {
			s, err := parse(b)
			if err != nil {
				wantStateError(t, "fuzz", err)
			} else if _, err := s.sections(); err != nil {
				t.Errorf("what was read cannot be written: %v", err)
			}
			if len(b) < stateHeaderSize {
				continue
			}
			if in := inspect(b); (err == nil) != (len(in.Problems) == 0) {
				t.Errorf("parse: %v, inspect: %v", err, in.Problems)
			}
		}
	})
}
