package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Tools are the programs and files of the host that a guest needs.
type Tools struct{ QEMU, Kernel, Busybox string }

// MissingError names what the host lacks and the Debian packages that have it.
type MissingError struct{ What, Packages []string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("needs %s (apt-get install %s)",
		strings.Join(e.What, ", "), strings.Join(e.Packages, " "))
}

func (e *MissingError) add(what, pkg string) {
	e.What, e.Packages = append(e.What, what), append(e.Packages, pkg)
}

// Find looks for QEMU, a kernel and a static busybox. The error is a *MissingError.
func Find() (Tools, error) {
	t, missing := find()
	var err error
	if t.QEMU, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		missing.add("qemu-system-x86_64", "qemu-system-x86")
	}
	return t, missing.orNil()
}

// FindGuest is Find without QEMU: what a guest of another VMM needs.
func FindGuest() (Tools, error) {
	t, missing := find()
	return t, missing.orNil()
}

func find() (t Tools, missing MissingError) {
	if t.Kernel = findKernel(); t.Kernel == "" {
		missing.add("a readable /boot/vmlinuz-*-amd64", "linux-image-cloud-amd64")
	}
	if t.Busybox = findBusybox(); t.Busybox == "" {
		missing.add("a static busybox", "busybox-static")
	}
	return t, missing
}

func (e MissingError) orNil() error {
	if len(e.What) > 0 {
		return &e
	}
	return nil
}

// findKernel prefers the cloud kernel: the smallest and the fastest to boot. The newest name wins.
func findKernel() string {
	for _, pattern := range []string{"/boot/vmlinuz-*-cloud-amd64", "/boot/vmlinuz-*-amd64"} {
		found, _ := filepath.Glob(pattern) // the pattern is right, so there is no error
		sort.Strings(found)
		for i := len(found) - 1; i >= 0; i-- {
			if f, err := os.Open(found[i]); err == nil {
				f.Close()
				return found[i]
			}
		}
	}
	return ""
}

// findBusybox looks for a busybox without an interpreter: the guest has no libraries.
func findBusybox() string {
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox", "/bin/busybox-static"} {
		if data, err := os.ReadFile(path); err == nil && isStatic(data) {
			return path
		}
	}
	return ""
}

// isStatic is true for an ELF file that does not name a dynamic loader.
func isStatic(elf []byte) bool {
	return len(elf) > 4 && string(elf[:4]) == "\x7fELF" &&
		!strings.Contains(string(elf[:min(len(elf), 4096)]), "/ld-linux")
}

// Version is QEMU's version as major and minor number.
func (t Tools) Version(ctx context.Context) (major, minor int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, t.QEMU, "--version").Output()
	if err != nil {
		return 0, 0, fmt.Errorf("qemu --version: %w", err)
	}
	if _, err := fmt.Sscanf(string(out), "QEMU emulator version %d.%d", &major, &minor); err != nil {
		return 0, 0, fmt.Errorf("qemu --version printed %q: %w", out, err)
	}
	return major, minor, nil
}
