package boot

import (
	"fmt"
	"io"
	"os"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/linux"
	"github.com/thawfs/thaw/vmm/ram"
)

// LoadKernel puts the kernel of a file into memory, with its command line and its initial RAM disk
// (another file; "": none). rsdp is where the tables of ACPI begin.
func LoadKernel(mem io.WriterAt, regions []ram.Region, kernel, initrd, cmdline string, rsdp uint64) (
	linux.Entry, error) {
	c := linux.Config{Cmdline: cmdline, RSDP: rsdp}
	for _, r := range regions {
		c.RAM = append(c.RAM, linux.Range{Start: r.GPA, Size: r.Size})
	}
	for _, file := range []struct {
		path    string
		section **io.SectionReader
	}{{kernel, &c.Kernel}, {initrd, &c.Initrd}} {
		if file.path == "" {
			continue
		}
		f, err := os.Open(file.path)
		if err != nil {
			return linux.Entry{}, err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return linux.Entry{}, err
		}
		if !st.Mode().IsRegular() {
			return linux.Entry{}, fmt.Errorf("%s is not a file", file.path)
		}
		*file.section = io.NewSectionReader(f, 0, st.Size())
	}
	e, err := linux.Load(mem, c)
	if err != nil {
		err = fmt.Errorf("%s: %w", kernel, err)
	}
	return e, err
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
	e.Sregs.APICBase = s.APICBase
	if err := k.SetSregs(e.Sregs); err != nil {
		return err
	}
	return k.SetRegs(e.Regs)
}
