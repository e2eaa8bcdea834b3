package boot

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "embed"
)

//go:embed init.sh
var initScript []byte

// modules are what the guest needs for a disk, unless its kernel has them built in.
var modules = []string{"virtio_ring", "virtio", "virtio_mmio", "virtio_blk"}

// initramfs is an archive in cpio's "newc" form with busybox, the script and the modules of a
// kernel.
func initramfs(t *testing.T, busybox, kernel string) []byte {
	t.Helper()
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var b bytes.Buffer
	for _, dir := range []string{"bin", "dev", "proc", "sys", "modules"} {
		entry(&b, dir, 0o040755, nil)
	}
	entry(&b, "bin/busybox", 0o100755, read(busybox))
	entry(&b, "init", 0o100755, initScript)
	dir := "/lib/modules/" + strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, ok := strings.CutSuffix(filepath.Base(path), ".ko")
		if ok && slices.Contains(modules, name) {
			entry(&b, "modules/"+d.Name(), 0o100644, read(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	entry(&b, "TRAILER!!!", 0, nil)
	return b.Bytes()
}

// entry appends a header of thirteen numbers, the name, and the data, each filled up to four bytes.
func entry(b *bytes.Buffer, name string, mode uint32, data []byte) {
	fill := func() { b.Write(make([]byte, -b.Len()&3)) }
	b.WriteString("070701")
	inode := b.Len() // any number that no other entry has
	for _, field := range []int{
		inode, int(mode), 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0,
	} {
		fmt.Fprintf(b, "%08x", field)
	}
	b.WriteString(name + "\x00")
	fill()
	b.Write(data)
	fill()
}
