package vmm

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/thawfs/thaw/vmm/acpi"
	"github.com/thawfs/thaw/vmm/boot"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// New makes a machine, paused before its first instruction.
func New(cfg Config) (*Machine, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	regions, err := ram.Layout(cfg.MemoryBytes)
	if err != nil {
		return nil, err
	}
	return newIn(regions, cfg)
}

func newIn(regions []ram.Region, cfg Config) (*Machine, error) {
	f := state.Facts{Regions: regions, VCPUs: cfg.CPUs, IRQChip: true, Guest: cfg.Guest, Disks: cfg.Disks}
	start := (*Machine).bootProgram
	if cfg.Kernel != "" {
		start = (*Machine).bootKernel
		cfg.Cmdline = cmp.Or(cfg.Cmdline, DefaultCmdline)
		f.Guest = guest.Spec{Program: state.LinuxGuest,
			Args: map[string]string{"kernel": cfg.Kernel, "cmdline": cfg.Cmdline}}
		if cfg.Initrd != "" {
			f.Guest.Args["initrd"] = cfg.Initrd
		}
	}
	if cfg.Kernel == "" && len(cfg.Disks) > 0 {
		return nil, fmt.Errorf("disks need a Linux kernel, and guest program %s cannot use them", cfg.Guest.Program)
	}
	program, err := loadProgram(f)
	if err != nil {
		return nil, err
	}
	if f.VCPUs = cmp.Or(f.VCPUs, program.CPUs); !f.Kernel() && f.VCPUs != program.CPUs {
		return nil, fmt.Errorf("guest program %s needs %d vCPUs, not %d", program.Name, program.CPUs,
			f.VCPUs)
	}
	m, err := newMachine(f, func() (*ram.Memory, error) { return ram.New(ram.ImageSize(regions)) }, cfg)
	if err != nil {
		return nil, err
	}
	if err := start(m, cfg); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// bootProgram loads a guest program and sets the vCPUs to its entry.
func (m *Machine) bootProgram(Config) error {
	b, err := m.program.Boot(boot.GuestRAM(m.facts.Regions))
	if err != nil {
		return err
	}
	root, err := boot.WriteProgram(m.mem, m.facts.Regions, b, m.program.Binary)
	if err != nil {
		return err
	}
	return m.eachVCPU("start", func(i int, k *kvm.VCPU) error { return boot.EnterProgram(k, i, root) })
}

// bootKernel loads the kernel and its boot data, and sets the first vCPU to its entry. The other vCPUs
// wait for the startup interrupt from the kernel.
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
	entry, err := boot.LoadKernel(m.mem, m.facts.Regions, cfg.Kernel, cfg.Initrd, cfg.Cmdline, acpiBase)
	if err != nil {
		return err
	}
	return m.eachVCPU("start", func(i int, k *kvm.VCPU) error {
		if err := boot.SetMemoryTypes(k); err != nil || i > 0 {
			return err
		}
		return boot.EnterKernel(k, entry)
	})
}
