package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/thawfs/thaw/tests/internal/proc"
	qmp "github.com/thawfs/thaw/wss/qemu"
)

// Config describes the machine. It must be the same for a boot and for the restores of its checkpoints,
// except for the files.
type Config struct {
	QEMU, Kernel, Busybox string // paths; empty = found by Find
	MemoryBytes           int64  // guest RAM; 0 = 512 MiB
	PayloadBytes          int64  // files in the initramfs; 0 = 112 MiB
	Dir                   string // scratch: initramfs, RAM file of the first run; must exist
	Socket                string // path of a second QMP socket, for another process; empty = none
	Memfd                 bool   // RAM of the first run is a memfd, which cannot be saved; Memory has its path
	NoHugePages           bool   // so that QEMU reads only pages of the memory file that the guest touches
	Log                   io.Writer
}

func (c *Config) fill() error {
	if c.MemoryBytes == 0 {
		c.MemoryBytes = 512 << 20
	}
	if c.PayloadBytes == 0 {
		c.PayloadBytes = 112 << 20
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	found, err := Find()
	if c.QEMU == "" {
		c.QEMU = found.QEMU
	}
	if c.Kernel == "" {
		c.Kernel = found.Kernel
	}
	if c.Busybox == "" {
		c.Busybox = found.Busybox
	}
	if c.QEMU == "" || c.Kernel == "" || c.Busybox == "" {
		return err
	}
	return nil
}

// Guest is one running QEMU process.
type Guest struct {
	QMP     *qmp.QMP
	Console *Console

	cfg    Config
	memory string // the file behind guest RAM
	proc   *proc.Process
	stdin  io.WriteCloser
	once   sync.Once
}

// memoryBackend is the text after `-object memory-backend-file,`.
func memoryBackend(c Config, path string, o RestoreOptions, restored bool) string {
	share := "on"
	if restored {
		share = "off"
	}
	s := fmt.Sprintf("memory-backend-file,id=ram,size=%d,mem-path=%s,share=%s",
		c.MemoryBytes, path, share)
	if o.ReadOnly {
		s += ",readonly=on,rom=off"
	}
	return s
}

// start runs QEMU with the arguments that all machines have and extra ones.
func start(ctx context.Context, c Config, backend, memory string, extra ...string) (*Guest, error) {
	local, remote, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer remote.Close()
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-smp", "1",
		"-m", fmt.Sprintf("%dM", c.MemoryBytes>>20),
		"-machine", "pc,memory-backend=ram,graphics=off", "-object", backend,
		"-chardev", "stdio,id=con,signal=off", "-serial", "chardev:con",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
	}
	if c.Socket != "" {
		args = append(args, "-qmp", "unix:"+c.Socket+",server=on,wait=off")
	}
	cmd := exec.Command(c.QEMU, append(args, extra...)...)
	cmd.ExtraFiles = []*os.File{remote}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		local.Close()
		return nil, err
	}
	// A pipe of our own: exec's would be closed by Wait before the last lines have been read.
	out, outChild, err := os.Pipe()
	if err != nil {
		local.Close()
		return nil, err
	}
	defer outChild.Close()
	cmd.Stdout, cmd.Stderr = outChild, outChild
	prepare := func() error { return nil }
	if c.NoHugePages {
		prepare = refuseHugePages
	}
	p, err := proc.StartOn(cmd, prepare)
	if err != nil {
		local.Close()
		out.Close()
		return nil, fmt.Errorf("qemu: %w", err)
	}
	g := &Guest{cfg: c, memory: memory, proc: p, stdin: stdin, Console: newConsole(out, c.Log)}
	if g.QMP, err = qmp.NewQMP(ctx, local); err != nil {
		g.Close()
		return nil, fmt.Errorf("%w; it printed:\n%s", err, g.Console.Text())
	}
	return g, nil
}

// socketPair returns a connected pair: one end as net.Conn, the other as a file to inherit.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("qemu: socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "qmp"), os.NewFile(uintptr(fds[1]), "qmp-qemu")
	conn, err := net.FileConn(ours) // a duplicate
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("qemu: socketpair: %w", err)
	}
	return conn, theirs, nil
}

// Boot starts the kernel with the workload. It returns as soon as QEMU runs; Console.WaitTick
// waits for the workload.
func Boot(ctx context.Context, c Config) (*Guest, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	initrd := filepath.Join(c.Dir, "initramfs.zst")
	f, err := os.Create(initrd)
	if err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}
	err = errors.Join(WriteInitramfs(f, c.Busybox, c.PayloadBytes), f.Close())
	if err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}
	memory := filepath.Join(c.Dir, "ram")
	backend := memoryBackend(c, memory, RestoreOptions{}, false)
	if c.Memfd {
		backend = fmt.Sprintf("memory-backend-memfd,id=ram,size=%d,share=on", c.MemoryBytes)
	}
	g, err := start(ctx, c, backend, memory,
		"-kernel", c.Kernel, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 tsc=unstable", "-no-reboot")
	if err != nil || !c.Memfd {
		return g, err
	}
	if g.memory, err = memfdOf(g.PID()); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// memfdOf is the path of the memfd that a process has open.
func memfdOf(pid int) (string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("qemu: %w", err)
	}
	for _, fd := range fds {
		path := filepath.Join(dir, fd.Name())
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, "/memfd:") {
			return path, nil
		}
	}
	return "", errors.New("qemu: it has no memfd open")
}

// Memory is the file that is the guest's RAM.
func (g *Guest) Memory() string { return g.memory }

// PID is the process of QEMU.
func (g *Guest) PID() int { return g.proc.Pid() }

// Exited is closed when QEMU has ended; Err says how.
func (g *Guest) Exited() <-chan struct{} { return g.proc.Done() }

// Err is nil while QEMU runs and after it ended with status 0.
func (g *Guest) Err() error { return g.proc.Err() }

// Command sends one line to the guest's console.
func (g *Guest) Command(line string) error {
	_, err := io.WriteString(g.stdin, line+"\n")
	return err
}

// Close ends the machine whatever its state, waits for its process and joins the console's
// reader. It is safe to call more than once. The error is not nil where the process could not be
// ended, which means that it hangs in the kernel.
func (g *Guest) Close() error {
	var err error
	g.once.Do(func() {
		if g.QMP != nil {
			g.QMP.Close()
		}
		g.stdin.Close()
		err = g.proc.Kill(10 * time.Second)
		g.Console.close()
	})
	return err
}
