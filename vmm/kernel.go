package vmm

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/thawfs/thaw/vmm/acpi"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/linux"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// DefaultCmdline is the command line of a kernel if none is given: it prints to the serial console,
// and a panic resets the machine, which ends it.
const DefaultCmdline = "console=ttyS0 panic=-1"

// loadProgram finds the guest program. For a kernel it is a name: its code is in memory.
func loadProgram(f state.Facts) (*guest.Program, error) {
	if f.Kernel() {
		return &guest.Program{Name: state.LinuxGuest, CPUs: f.VCPUs}, nil
	}
	return guest.Load(f.Guest)
}

// newKernel makes a machine with a kernel at its entry.
func newKernel(cfg Config) (_ *Machine, err error) {
	regions, err := ram.Layout(cfg.MemoryBytes)
	if err != nil {
		return nil, err
	}
	disks, err := absolute(cfg.Disks)
	if err != nil {
		return nil, err
	}
	if cfg.Cmdline == "" {
		cfg.Cmdline = DefaultCmdline
	}
	args := map[string]string{"kernel": cfg.Kernel, "cmdline": cfg.Cmdline}
	if cfg.Initrd != "" {
		args["initrd"] = cfg.Initrd
	}
	mem, err := ram.New(ram.ImageSize(regions))
	if err != nil {
		return nil, err
	}
	f := state.Facts{Regions: regions, VCPUs: max(cfg.CPUs, 1), IRQChip: true, Disks: disks,
		Guest: guest.Spec{Program: state.LinuxGuest, Args: args}}
	m, err := newMachine(f, mem, externals{console: cfg.Console}, cfg.Log)
	if err != nil {
		return nil, err
	}
	if err := m.bootKernel(cfg); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// bootKernel puts the kernel and all that it is told into memory, and the first vCPU at its entry.
// The others wait for the interrupt by which the kernel starts them.
func (m *Machine) bootKernel(cfg Config) error {
	tables, err := acpi.Build(acpiConfig(m.facts))
	if err != nil {
		return err
	}
	if _, err := m.mem.WriteAt(tables, acpiBase); err != nil {
		return err
	}
	if _, err := m.mem.WriteAt(acpi.Restart(acpiConfig(m.facts).Reset), acpi.RestartAddr); err != nil {
		return err
	}
	entry, err := m.loadKernel(cfg)
	if err != nil {
		return err
	}
	for i, c := range m.vcpus {
		err := c.do(func() error {
			if err := setMemoryTypes(c.k); err != nil || i > 0 {
				return err
			}
			return enterKernel(c.k, entry)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) loadKernel(cfg Config) (e linux.Entry, err error) {
	c := linux.Config{Cmdline: cfg.Cmdline, RSDP: acpiBase}
	for _, r := range m.facts.Regions {
		c.RAM = append(c.RAM, linux.Range{Start: r.GPA, Size: r.Size})
	}
	kernel, err := openSection(cfg.Kernel)
	if err != nil {
		return e, err
	}
	defer kernel.file.Close()
	c.Kernel = kernel.SectionReader
	if cfg.Initrd != "" {
		initrd, err := openSection(cfg.Initrd)
		if err != nil {
			return e, err
		}
		defer initrd.file.Close()
		c.Initrd = initrd.SectionReader
	}
	if e, err = linux.Load(m.mem, c); err != nil {
		err = fmt.Errorf("%s: %w", cfg.Kernel, err)
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
		err = fmt.Errorf("%s is no file", path)
	}
	if err != nil {
		return s, errors.Join(err, s.file.Close())
	}
	s.SectionReader = io.NewSectionReader(s.file, 0, st.Size())
	return s, nil
}

// setMemoryTypes does what firmware does on each CPU: all memory is write-back. With the registers
// as they are after a reset (uncached) a kernel takes the CPU for one without PAT.
func setMemoryTypes(k *kvm.VCPU) error {
	const defType, enabled, writeBack = 0x2ff, 1 << 11, 6
	return k.SetMSRs([]kvm.MSREntry{{Index: defType, Data: enabled | writeBack}})
}

// enterKernel sets a vCPU up as the boot protocol wants it.
func enterKernel(k *kvm.VCPU, e linux.Entry) error {
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
