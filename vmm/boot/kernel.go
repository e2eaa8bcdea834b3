package boot

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/linux"
	"github.com/thawfs/thaw/vmm/ram"
)

// KernelFiles is what to boot.
type KernelFiles struct {
	Kernel, Initrd string // paths; no initial RAM disk: ""
	Cmdline        string
}

// LoadKernel puts a kernel into memory, with its command line and its initial RAM disk. rsdp is where
// the tables of ACPI begin.
func LoadKernel(mem io.WriterAt, regions []ram.Region, f KernelFiles, rsdp uint64) (e linux.Entry,
	err error) {
	c := linux.Config{Cmdline: f.Cmdline, RSDP: rsdp}
	for _, r := range regions {
		c.RAM = append(c.RAM, linux.Range{Start: r.GPA, Size: r.Size})
	}
	kernel, err := openSection(f.Kernel)
	if err != nil {
		return e, err
	}
	defer kernel.file.Close()
	c.Kernel = kernel.SectionReader
	if f.Initrd != "" {
		initrd, err := openSection(f.Initrd)
		if err != nil {
			return e, err
		}
		defer initrd.file.Close()
		c.Initrd = initrd.SectionReader
	}
	if e, err = linux.Load(mem, c); err != nil {
		err = fmt.Errorf("%s: %w", f.Kernel, err)
	}
	return e, err
}

// fileSection is a file as a section of known size.
type fileSection struct {
	*io.SectionReader
	file *os.File
}

func openSection(path string) (s fileSection, err error) {
	if s.file, err = os.Open(path); err != nil {
		return s, err
	}
	st, err := s.file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		return s, errors.Join(err, s.file.Close())
	}
	s.SectionReader = io.NewSectionReader(s.file, 0, st.Size())
	return s, nil
}

// SetMemoryTypes does what firmware does on each CPU: all memory is write-back. With the registers
// as they are after a reset (uncached) a kernel takes the CPU for one without PAT.
func SetMemoryTypes(k *kvm.VCPU) error {
	const defType, enabled, writeBack = 0x2ff, 1 << 11, 6
	return k.SetMSRs([]kvm.MSREntry{{Index: defType, Data: enabled | writeBack}})
}

// EnterKernel sets a vCPU up as the boot protocol wants it.
func EnterKernel(k *kvm.VCPU, e linux.Entry) error {
	s, err := k.Sregs()
	if err != nil {
		return err
	}
	data := segmentOf(e.Data)
	s.CS, s.TR = segmentOf(e.Code), segmentOf(e.Task)
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.LDT = kvm.Segment{Unusable: 1}
	s.GDT, s.IDT = kvm.Dtable{Base: e.GDT.Base, Limit: e.GDT.Limit}, kvm.Dtable{}
	s.CR0, s.CR3, s.CR4, s.EFER = e.CR0, e.CR3, e.CR4, e.EFER
	if err := k.SetSregs(s); err != nil {
		return err
	}
	return k.SetRegs(kvm.Regs{RIP: e.RIP, RSI: e.RSI, RSP: e.RSP, RFLAGS: e.RFLAGS})
}

func segmentOf(s linux.Segment) kvm.Segment {
	bit := func(on bool) uint8 {
		if on {
			return 1
		}
		return 0
	}
	return kvm.Segment{Base: s.Base, Limit: s.Limit, Selector: s.Selector, Type: s.Type, Present: 1,
		S: bit(!s.System), L: bit(s.Long), DB: bit(s.Wide), G: bit(s.Pages)}
}
