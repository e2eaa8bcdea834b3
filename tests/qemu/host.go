package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/thawfs/thaw/tests/internal/cpio"
	"github.com/thawfs/thaw/tests/internal/proc"

	_ "embed"
)

//go:embed host.sh
var hostScript []byte

// hostModules are what a host needs: KVM, FUSE, a disk.
var hostModules = []string{"kvm_amd", "fuse", "virtio_pci", "virtio_blk", "ext4"}

// Host is an emulated machine that can run KVM: QEMU's software CPU has AMD's virtualisation with
// nested paging. A script runs in it as root, with files of this host, and Run returns what it printed.
// With Debian 12's kernel it is also a host without the features of Linux 6.7.
//
// One CPU is as fast as two: QEMU needs a thread for each, and the script's processes seldom have work
// for both. With one, the TSC is the clock. Timer ticks are periodic, because a one-shot timer that
// expires while a guest of the machine runs is sometimes lost (QEMU 7.2), and then the whole machine
// waits until another interrupt comes.
type Host struct {
	Tools
	MemoryBytes int64             // 0 = 1 GiB
	CPUs        int               // 0 = 1
	DiskBytes   int64             // of /tmp, a file of Dir that is sparse; 0 = 4 GiB
	Files       map[string]string // name in the machine to file or directory of this host
	Script      string            // for busybox' sh, in /tmp
	Dir         string            // scratch; must exist
	Log         io.Writer         // what the script prints, while it runs; may be nil
}

// HostResult is what a script has left.
type HostResult struct {
	Status  int    // of the script
	Output  string // standard output and standard error of the script
	Console string // what the kernel said
}

// FindHost is Find, and the modules that a Host needs.
func FindHost() (Tools, error) {
	tools, err := Find()
	if err != nil {
		return tools, err
	}
	if _, err := Modules(tools.Kernel, hostModules...); err != nil {
		return tools, &MissingError{What: []string{err.Error()}, Packages: []string{"linux-image-cloud-amd64"}}
	}
	return tools, nil
}

// Run boots the machine and runs the script. A script that fails is not an error; a machine that ends
// without its status is. When ctx is done the machine is killed, and the result is what was there.
func (h Host) Run(ctx context.Context) (HostResult, error) {
	if h.Log == nil {
		h.Log = io.Discard
	}
	disk, initrd := filepath.Join(h.Dir, "disk"), filepath.Join(h.Dir, "host.cpio")
	defer os.Remove(disk)
	defer os.Remove(initrd)
	if err := h.prepare(disk, initrd); err != nil {
		return HostResult{}, fmt.Errorf("test host: %w", err)
	}
	r, err := h.boot(ctx, disk, initrd)
	if err != nil {
		return r, fmt.Errorf("test host: %w; it printed:\n%s\nits kernel said:\n%s", err, r.Output, r.Console)
	}
	return r, nil
}

// prepare makes the disk and the initramfs. The archive is not compressed: unpacking would take
// QEMU's CPU longer than QEMU needs to copy it.
func (h Host) prepare(disk, initrd string) error {
	d, err := os.Create(disk)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Truncate(cmp.Or(h.DiskBytes, 4<<30)), d.Close()); err != nil {
		return err
	}
	f, err := os.Create(initrd)
	if err != nil {
		return err
	}
	return errors.Join(h.writeInitramfs(f), f.Close())
}

func (h Host) writeInitramfs(w io.Writer) error {
	c := cpio.New(w)
	if err := h.addSystem(c, hostScript, hostModules...); err != nil {
		return err
	}
	c.File("script", 0o644, []byte(h.Script))
	for name, path := range h.Files {
		if err := addFile(c, strings.TrimPrefix(name, "/"), path); err != nil {
			return err
		}
	}
	return c.Close()
}

// WriteSystem writes an initramfs, not compressed, with busybox, a script that is its init, and
// modules of the kernel with all that they need: in the directory modules, which has the order to
// load them in a file of that name.
func (t Tools) WriteSystem(w io.Writer, init []byte, modules ...string) error {
	c := cpio.New(w)
	return errors.Join(t.addSystem(c, init, modules...), c.Close())
}

func (t Tools) addSystem(c *cpio.Writer, init []byte, modules ...string) error {
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "run"} {
		c.MkdirAll(dir)
	}
	c.CharDevice("dev/console", 5, 1)
	if err := addFile(c, "bin/busybox", t.Busybox); err != nil {
		return err
	}
	c.Symlink("bin/sh", "busybox")
	c.File("init", 0o755, init)
	paths, err := Modules(t.Kernel, modules...)
	if err != nil {
		return err
	}
	order := ""
	for _, path := range paths {
		if err := addFile(c, "modules/"+filepath.Base(path), path); err != nil {
			return err
		}
		order += filepath.Base(path) + "\n"
	}
	c.File("modules/order", 0o644, []byte(order))
	return nil
}

// addFile adds a file, or a directory with all that it has.
func addFile(c *cpio.Writer, name, path string) error {
	return filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(at)
		if err != nil || info.IsDir() {
			return err
		}
		data, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		c.File(filepath.Join(name, strings.TrimPrefix(at, path)), uint32(info.Mode().Perm()), data)
		return nil
	})
}

// boot runs QEMU to its end.
func (h Host) boot(ctx context.Context, disk, initrd string) (HostResult, error) {
	cmd := exec.Command(h.QEMU,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc,graphics=off",
		"-accel", "tcg,thread=single", "-cpu", "max", "-smp", fmt.Sprint(cmp.Or(h.CPUs, 1)),
		"-m", fmt.Sprintf("%dM", cmp.Or(h.MemoryBytes, 1<<30)>>20),
		"-chardev", "stdio,id=con,signal=off", "-serial", "chardev:con",
		"-chardev", "file,id=out,path=/dev/fd/3", "-serial", "chardev:out",
		"-drive", "file="+disk+",format=raw,if=virtio,cache=unsafe",
		"-kernel", h.Kernel, "-initrd", initrd,
		"-append", "console=ttyS0 loglevel=5 panic=-1 edd=off mitigations=off nohz=off highres=off")
	console, consoleChild, err := os.Pipe()
	if err != nil {
		return HostResult{}, err
	}
	output, outputChild, err := os.Pipe()
	if err != nil {
		console.Close()
		consoleChild.Close()
		return HostResult{}, err
	}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = consoleChild, consoleChild, []*os.File{outputChild}
	p, err := proc.Start(cmd)
	consoleChild.Close()
	outputChild.Close()
	if err != nil {
		console.Close()
		output.Close()
		return HostResult{}, err
	}
	kernel, script := newConsole(console, io.Discard), newConsole(output, h.Log)
	select {
	case <-p.Done():
	case <-ctx.Done():
		err = errors.Join(context.Cause(ctx), p.Kill(10*time.Second))
	}
	kernel.close()
	script.close()
	r := HostResult{Status: -1, Output: script.Text(), Console: kernel.Text()}
	for line := range strings.Lines(r.Console) {
		_, _ = fmt.Sscanf(line, "status %d", &r.Status) // other lines are the kernel's
	}
	if r.Status < 0 {
		err = errors.Join(err, p.Err(), errors.New("it ended without the script's status"))
	}
	return r, err
}
