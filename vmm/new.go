package vmm

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/thawfs/thaw/vmm/acpi"
	"github.com/thawfs/thaw/vmm/boot"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// New makes a machine with a guest program in it, paused before the first instruction.
func New(spec guest.Spec, memoryBytes uint64, log *slog.Logger) (*Machine, error) {
	return newFrom(Config{Guest: spec, MemoryBytes: memoryBytes, Log: log})
}

// newFrom makes the machine of a configuration.
func newFrom(cfg Config) (*Machine, error) {
	if cfg.Kernel != "" {
		return newKernel(cfg)
	}
	regions, err := ram.Layout(cfg.MemoryBytes)
	if err != nil {
		return nil, err
	}
	return newWithRegions(cfg.Guest, cfg.CPUs, regions, cfg.Log)
}

func newWithRegions(spec guest.Spec, cpus int, regions []ram.Region, log *slog.Logger) (*Machine,
	error) {
	program, err := guest.Load(spec)
	if err != nil {
		return nil, err
	}
	if cpus == 0 {
		cpus = program.CPUs
	}
	if cpus != program.CPUs {
		return nil, fmt.Errorf("guest program %s is for %d vCPUs, not %d", program.Name, program.CPUs,
			cpus)
	}
	b, err := program.Boot(boot.GuestRAM(regions))
	if err != nil {
		return nil, err
	}
	mem, err := ram.New(ram.ImageSize(regions))
	if err != nil {
		return nil, err
	}
	f := state.Facts{Regions: regions, VCPUs: cpus, IRQChip: true, Guest: spec}
	m, err := newMachine(f, mem, externals{}, log)
	if err != nil {
		return nil, err
	}
	if err := m.boot(b); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// boot puts the program into memory, and the vCPUs at its entry.
func (m *Machine) boot(b guest.Boot) error {
	root, err := boot.WriteProgram(m.mem, m.facts.Regions, b, m.program.Binary)
	if err != nil {
		return err
	}
	for i, c := range m.vcpus {
		if err := c.Do(func() error { return boot.EnterProgram(c.KVM, i, root) }); err != nil {
			return err
		}
	}
	return nil
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
	entry, err := boot.LoadKernel(m.mem, m.facts.Regions, cfg.Kernel, cfg.Initrd, cfg.Cmdline, acpiBase)
	if err != nil {
		return err
	}
	for i, c := range m.vcpus {
		err := c.Do(func() error {
			if err := boot.SetMemoryTypes(c.KVM); err != nil || i > 0 {
				return err
			}
			return boot.EnterKernel(c.KVM, entry)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
