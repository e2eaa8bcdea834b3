package qemu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
)

// Standing starts a machine without a kernel that never runs: its RAM is what the file memory has, which has
// to be as large as c says. It is there to be saved in QEMU's own formats. A graphics card gives it memory
// that is not RAM.
func Standing(ctx context.Context, c Config, memory string) (*Guest, error) {
	if err := c.findQEMU(); err != nil {
		return nil, err
	}
	return start(ctx, c, memoryBackend(c, memory, RestoreOptions{}, false), memory, "-S", "-vga", "std")
}

// Received is a machine like Standing's that was restored from memory and a migration stream. Unlike
// Restore it does not ask for x-ignore-shared, so the stream may be one that was saved without.
func Received(ctx context.Context, c Config, memory, state string) (*Guest, error) {
	if err := c.findQEMU(); err != nil {
		return nil, err
	}
	g, err := start(ctx, c, memoryBackend(c, memory, RestoreOptions{}, true), memory, "-S", "-vga", "std",
		"-incoming", "defer")
	if err != nil {
		return nil, err
	}
	if err := g.receive(ctx, state); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// FromStream is a machine of Boot's that was restored from a migration stream which has its memory, and
// stands until Continue. Its memory is its own.
func FromStream(ctx context.Context, c Config, stream string) (*Guest, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	backend := fmt.Sprintf("memory-backend-ram,id=ram,size=%d", c.MemoryBytes)
	g, err := start(ctx, c, backend, "", "-S", "-no-reboot", "-incoming", "exec:cat "+stream)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, func() (bool, error) {
		s, err := g.QMP.Status(ctx)
		return s != "inmigrate", err
	})
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// findQEMU finds QEMU alone.
func (c *Config) findQEMU() (err error) {
	if c.QEMU == "" {
		c.QEMU, err = exec.LookPath("qemu-system-x86_64")
	}
	return err
}

// Dump writes the machine's memory as a core: format is "elf" or one of QEMU's compressed ones.
func (g *Guest) Dump(ctx context.Context, path, format string) error {
	return g.QMP.Run(ctx, "dump-guest-memory", map[string]any{
		"paging": false, "protocol": "file:" + path, "format": format}, nil)
}

// Physical writes the first bytes of what the guest sees as its physical memory.
func (g *Guest) Physical(ctx context.Context, path string, bytes int64) error {
	return g.QMP.Run(ctx, "pmemsave", map[string]any{"val": 0, "size": bytes, "filename": path}, nil)
}
