package vmm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// tinyKernel is a kernel of a few instructions in ring 0: it prints 'A'; 'V' if the first virtio device
// answers at its address, else 'v'; 'F' if a port without a device reads as all ones, else 'f'. Then it
// echoes its input; 'q' switches the machine off, 'r' resets it.
var tinyKernel = []byte{
	0xba, 0xf8, 0x03, 0x00, 0x00, //       mov $0x3f8, %edx
	0xb0, 0x41, //                         mov $'A', %al
	0xee,                         //       out %al, %dx
	0xbb, 0x00, 0x00, 0x00, 0xd0, //       mov $0xd0000000, %ebx
	0x8b, 0x03, //                         mov (%rbx), %eax
	0x3d, 0x76, 0x69, 0x72, 0x74, //       cmp $"virt", %eax
	0xb0, 0x56, //                         mov $'V', %al
	0x74, 0x02, //                         je +2
	0xb0, 0x76, //                         mov $'v', %al
	0xee,                         //       out %al, %dx
	0xba, 0x34, 0x12, 0x00, 0x00, //       mov $0x1234, %edx
	0xef,                         //       out %eax, %dx
	0xed,                         //       in %dx, %eax
	0xba, 0xf8, 0x03, 0x00, 0x00, //       mov $0x3f8, %edx
	0x83, 0xf8, 0xff, //                   cmp $-1, %eax
	0xb0, 0x46, //                         mov $'F', %al
	0x74, 0x02, //                         je +2
	0xb0, 0x66, //                         mov $'f', %al
	0xee,                         //       out %al, %dx
	0xba, 0xfd, 0x03, 0x00, 0x00, // poll: mov $0x3fd, %edx
	0xec,       //                         in %dx, %al
	0xa8, 0x01, //                         test $1, %al
	0x74, 0xf6, //                         jz poll
	0xba, 0xf8, 0x03, 0x00, 0x00, //       mov $0x3f8, %edx
	0xec,       //                         in %dx, %al
	0xee,       //                         out %al, %dx
	0x3c, 0x71, //                         cmp $'q', %al
	0x74, 0x0c, //                         je off
	0x3c, 0x72, //                         cmp $'r', %al
	0x75, 0xe7, //                         jne poll
	0xba, 0x02, 0x06, 0x00, 0x00, //       mov $0x602, %edx
	0xb0, 0x01, //                         mov $1, %al
	0xee,                         //       out %al, %dx
	0xba, 0x00, 0x06, 0x00, 0x00, // off:  mov $0x600, %edx
	0xb0, 0x34, //                         mov $0x34, %al
	0xee,       //                         out %al, %dx
	0xeb, 0xf6, //                         jmp off
}

// touchKernel waits for a byte, then reads a page at 31 MiB with interrupts on, and prints 'B'.
var touchKernel = []byte{
	0xba, 0xfd, 0x03, 0x00, 0x00, // poll: mov $0x3fd, %edx
	0xec,       //                         in %dx, %al
	0xa8, 0x01, //                         test $1, %al
	0x74, 0xf6, //                         jz poll
	0xb0, 0xff, //                         mov $0xff, %al
	0xe6, 0x21, //                         out %al, $0x21: none from the PICs
	0xe6, 0xa1, //                         out %al, $0xa1
	0xfb,                         //       sti
	0xbb, 0x00, 0x00, 0xf0, 0x01, //       mov $0x1f00000, %ebx
	0x8b, 0x03, //                         mov (%rbx), %eax
	0xba, 0xf8, 0x03, 0x00, 0x00, //       mov $0x3f8, %edx
	0xb0, 0x42, //                         mov $'B', %al
	0xee,       //                         out %al, %dx
	0xeb, 0xfe, //                         jmp .
}

// vmlinux is an ELF file with a kernel at 1 MiB.
func vmlinux(t *testing.T, code []byte) string {
	t.Helper()
	const entry, header = 1 << 20, 64 + 56
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, header-7)...)
	le.PutUint16(b[16:], 2)  // an executable
	le.PutUint16(b[18:], 62) // for x86-64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], entry)
	le.PutUint64(b[32:], 64) // program headers:
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1) // one,
	le.PutUint32(b[64:], 1) // to be loaded,
	le.PutUint32(b[68:], 5)
	le.PutUint64(b[72:], header) // from here
	le.PutUint64(b[80:], entry)
	le.PutUint64(b[88:], entry) // to there
	le.PutUint64(b[96:], uint64(len(code)))
	le.PutUint64(b[104:], uint64(len(code)))
	le.PutUint64(b[112:], 4096)
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, append(b, code...), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// screen collects a console's output, and can wait for a text.
type screen struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until a text has been printed.
func (s *screen) await(t *testing.T, m *Machine, want string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !strings.Contains(s.String(), want) {
		select {
		case <-m.ended:
			t.Fatalf("the machine ended: %v; console %q", m.Wait(t.Context()), s)
		case <-deadline:
			t.Fatalf("%q does not come: console %q", want, s)
		case <-time.After(5 * time.Millisecond): // between two looks
		}
	}
}

func diskImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *screen) config(t *testing.T) Config {
	t.Helper()
	return Config{Kernel: vmlinux(t, tinyKernel), MemoryBytes: testMemory, CPUs: 2, Console: s,
		Disks: []state.Disk{{Path: diskImage(t)}}, Log: testLog(t)}
}

// Devices are at the addresses where the kernel looks for them, and it can end its machine in both ways.
func TestKernel(t *testing.T) {
	needKVM(t)
	for typed, want := range map[string]string{"hello q": endPowerOff, "r": endReset} {
		var s screen
		cfg := s.config(t)
		in, keyboard := io.Pipe()
		cfg.Input = in
		typing := make(chan error, 1)
		cfg.Started = func() {
			go func() { _, err := keyboard.Write([]byte(typed)); typing <- err }()
		}
		rep, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatalf("%v; console %q", err, &s)
		}
		if err := <-typing; err != nil {
			t.Error(err)
		}
		if rep.End != want || s.String() != "AVF"+typed {
			t.Errorf("%q: end %q, console %q", typed, rep.End, &s)
		}
	}
}

// The user leaves, and the machine ends.
func TestLeaveConsole(t *testing.T) {
	needKVM(t)
	var s screen
	cfg := s.config(t)
	in, keyboard := io.Pipe()
	cfg.Input = in
	cfg.Started = func() { keyboard.CloseWithError(ErrLeave) }
	rep, err := Run(t.Context(), cfg)
	if err != nil || rep.End != endStopped {
		t.Errorf("%+v, %v", rep, err)
	}
}

// A machine with a kernel is saved and continues, with bytes in its serial port that it has not read.
func TestKernelGoesOn(t *testing.T) {
	needKVM(t)
	var s screen
	cfg := s.config(t)
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	s.await(t, m, "AVF")
	if n, err := m.serial.Feed([]byte("one ")); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	s.await(t, m, "one ")
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	if n, err := m.serial.Feed([]byte("lost")); n != 0 || err != nil {
		t.Errorf("a paused machine took %d bytes, %v", n, err)
	}
	dir := checkpoint(t, m)
	if err := m.Close(); err != nil { // also gives up the disk
		t.Fatal(err)
	}
	var next screen
	l, err := load(dir, Config{Log: testLog(t), Console: &next})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	compareDevices(t, dir, l.Machine)
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.serial.Feed([]byte("two q")); err != nil {
		t.Fatal(err)
	}
	if err := l.Wait(t.Context()); !errors.Is(err, device.ErrPowerOff) {
		t.Errorf("end: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if next.String() != "two q" {
		t.Errorf("console %q, then %q", &s, &next)
	}
}

// compareDevices reads the state of a restored machine back.
func compareDevices(t *testing.T, dir string, m *Machine) {
	t.Helper()
	want, err := state.Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.save()
	if err != nil {
		t.Fatal(err)
	}
	got, err := inspectSaved(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range state.Diff(want, got) {
		if c.Field == "TSC" || c.Section == "CLOCK 0" || c.Section == "PIT2 0" {
			continue // they run on
		}
		t.Errorf("saved and restored state differ: %v", c)
	}
	if len(want.Problems) > 0 || fieldOf(want, "VIRTBLK 0", "sectors") != "0x800" ||
		fieldOf(want, "SERIAL 0", "ier") == "" || fieldOf(want, "VMGENID 0", "addr") != "0xfe000" {
		t.Errorf("devices: %+v", want.Problems)
	}
}

// Two machines from one checkpoint have different generation IDs, and neither that of the first.
func TestGenerationID(t *testing.T) {
	needKVM(t)
	var s screen
	m, err := New(s.config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	id := func(m *Machine) string {
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 16)
		if _, err := m.mem.ReadAt(b, genIDAddr); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ids := map[string]bool{id(m): true, id(m): true}
	if len(ids) != 1 || ids[string(make([]byte, 16))] {
		t.Errorf("a pause gave another generation ID, or there was none: %v", ids)
	}
	dir := checkpoint(t, m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l, err := load(dir, Config{Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		ids[id(l.Machine)] = true
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) != 3 {
		t.Errorf("three machines have %d generation IDs", len(ids))
	}
}

func TestKernelRefusals(t *testing.T) {
	needKVM(t)
	var s screen
	good := s.config(t)
	for what, change := range map[string]func(*Config){
		"no such kernel":  func(c *Config) { c.Kernel += "x" },
		"no such initrd":  func(c *Config) { c.Initrd = "nowhere" },
		"a kernel of 0":   func(c *Config) { c.Kernel = os.DevNull },
		"no such disk":    func(c *Config) { c.Disks = []state.Disk{{Path: "nowhere"}} },
		"one disk twice":  func(c *Config) { c.Disks = append(c.Disks, c.Disks[0]) },
		"many disks":      func(c *Config) { c.Disks = make([]state.Disk, state.MaxDisks+1) },
		"long line":       func(c *Config) { c.Cmdline = strings.Repeat("x", 2048) },
		"too many vCPUs":  func(c *Config) { c.CPUs = 1 << 20 },
		"odd memory size": func(c *Config) { c.MemoryBytes++ },
	} {
		cfg := good
		cfg.Disks = append([]state.Disk{}, good.Disks...)
		change(&cfg)
		if m, err := New(cfg); err == nil {
			t.Errorf("%s: no error", what)
			m.Close()
		}
	}
	m, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	dir := checkpoint(t, m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string]Config{
		"no disk":       {Disks: []state.Disk{}},
		"a smaller one": {Disks: []state.Disk{{Path: good.Kernel}}},
		"read-only":     {Disks: []state.Disk{{Path: good.Disks[0].Path, ReadOnly: true}}},
	} {
		x.Log = testLog(t)
		if l, err := load(dir, x); err == nil {
			t.Errorf("%s: no error", what)
			l.Close()
		}
	}
}

// Devices that only a kernel has are refused for a guest program, because its checkpoints could not
// be restored.
func TestProgramRefusals(t *testing.T) {
	needKVM(t)
	for what, cfg := range map[string]Config{
		"a disk":                    {Guest: spec("heap"), Disks: []state.Disk{{Path: os.DevNull}}},
		"a kernel without its file": {Guest: spec(state.LinuxGuest)},
	} {
		cfg.MemoryBytes, cfg.Log = ram.MinMemory, testLog(t)
		if m, err := New(cfg); err == nil {
			t.Errorf("%s: no error", what)
			m.Close()
		}
	}
}

// A page that cannot be read also ends a guest that takes interrupts. KVM loads pages for it in the
// background while it continues; a page that never loads must not become an endless loop.
func TestLostPageWithInterrupts(t *testing.T) {
	needKVM(t)
	var s screen
	cfg := s.config(t)
	cfg.Kernel, cfg.CPUs = vmlinux(t, touchKernel), 1
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	dir := checkpoint(t, m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := load(dir, Config{Log: testLog(t), Console: &s})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Truncate(filepath.Join(dir, state.MemoryFile), 24<<20); err != nil {
		t.Fatal(err)
	}
	w := l.watch()
	defer w.stop()
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.serial.Feed([]byte("x")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = l.Wait(ctx)
	var lost *ram.LostError
	if !errors.As(err, &lost) || lost.Known && lost.GFN != 0x1f00 {
		t.Errorf("end: %v; console %q", err, &s)
	}
}
