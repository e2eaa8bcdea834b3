package boot

import (
	"fmt"
	"io"
	"os"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/linux"
	"github.com/thawfs/thaw/vmm/ram"
)

// LoadKernel loads the kernel, command line and initial RAM disk into memory. kernel and initrd are
// paths of files; initrd may be "". rsdp is the address of the ACPI tables.
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
			return linux.Entry{}, fmt.Errorf("%s is not a regular file", file.path)
		}
		*file.section = io.NewSectionReader(f, 0, st.Size())
	}
	e, err := linux.Load(mem, c)
	if err != nil {
		err = fmt.Errorf("%s: %w", kernel, err)
	}
	return e, err
}

// SetMemoryTypes makes all memory write-back, as firmware does on each CPU. With the reset value of the
// registers (uncached) a kernel assumes that the CPU has no PAT.
func SetMemoryTypes(k *kvm.VCPU) error {
	const defType, enabled, writeBack = 0x2ff, 1 << 11, 6
	return k.SetMSRs([]kvm.MSREntry{{Index: defType, Data: enabled | writeBack}})
}

// EnterKernel sets the registers of a vCPU for the kernel's entry.
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
