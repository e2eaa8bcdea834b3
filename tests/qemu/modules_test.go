package qemu

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestModules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": "kernel/a/kvm-amd.ko.xz: kernel/a/kvm.ko.xz kernel/v/irqbypass.ko.xz\n" +
			"kernel/a/kvm.ko.xz: kernel/v/irqbypass.ko.xz\nkernel/f/fuse.ko:\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := modulesIn(dir, []string{"ext4", "kvm", "kvm_amd", "fuse"})
	want := []string{"kernel/v/irqbypass.ko.xz", "kernel/a/kvm.ko.xz", "kernel/a/kvm-amd.ko.xz",
		"kernel/f/fuse.ko"}
	for i := range want {
		want[i] = filepath.Join(dir, want[i])
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if got, err := modulesIn(dir, []string{"xfs"}); err == nil {
		t.Errorf("a module that is not there: %v", got)
	}
}
