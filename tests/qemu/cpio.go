package qemu

import (
	"fmt"
	"io"
	"strings"
)

// File types of the mode word of a cpio entry, as in stat(2).
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000
	modeChar    = 0o020000
)

// cpioWriter writes the "newc" archive format, the one the Linux kernel unpacks as initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst): a header of fourteen hexadecimal
// numbers, the name, the data, each padded to four bytes. Parents must come before children.
type cpioWriter struct {
	w     io.Writer
	inode uint32
	dirs  map[string]bool
	off   int64
	err   error
}

func newCpioWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, dirs: map[string]bool{"": true, ".": true}}
}

// write keeps the first error; later calls do nothing.
func (c *cpioWriter) write(p []byte) {
	if c.err != nil {
		return
	}
	var n int
	n, c.err = c.w.Write(p)
	c.off += int64(n)
}

func (c *cpioWriter) pad() {
	if rest := c.off % 4; rest != 0 {
		c.write(make([]byte, 4-rest))
	}
}

// entry writes one header with its name; size bytes of data must follow.
func (c *cpioWriter) entry(name string, mode uint32, size int, rdevMajor, rdevMinor uint32) {
	c.inode++
	fields := []uint32{
		c.inode, mode, 0, 0, 1, 0, uint32(size), 0, 0, rdevMajor, rdevMinor,
		uint32(len(name) + 1), 0,
	}
	var b strings.Builder
	b.WriteString("070701")
	for _, f := range fields {
		fmt.Fprintf(&b, "%08x", f)
	}
	b.WriteString(name)
	b.WriteByte(0)
	c.write([]byte(b.String()))
	c.pad()
}

// mkdirAll writes the directory and its missing parents.
func (c *cpioWriter) mkdirAll(dir string) {
	if c.dirs[dir] {
		return
	}
	if i := strings.LastIndexByte(dir, '/'); i >= 0 {
		c.mkdirAll(dir[:i])
	}
	c.dirs[dir] = true
	c.entry(dir, modeDir|0o755, 0, 0, 0)
}

// file writes a regular file; name is relative to the root.
func (c *cpioWriter) file(name string, perm uint32, data []byte) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		c.mkdirAll(name[:i])
	}
	c.entry(name, modeRegular|perm, len(data), 0, 0)
	c.write(data)
	c.pad()
}

func (c *cpioWriter) symlink(name, target string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		c.mkdirAll(name[:i])
	}
	c.entry(name, modeSymlink|0o777, len(target), 0, 0)
	c.write([]byte(target))
	c.pad()
}

// charDevice writes a device node: the kernel opens /dev/console before init can mount devtmpfs.
func (c *cpioWriter) charDevice(name string, major, minor uint32) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		c.mkdirAll(name[:i])
	}
	c.entry(name, modeChar|0o600, 0, major, minor)
}

// close writes the trailer.
func (c *cpioWriter) close() error {
	c.inode = 0
	c.entry("TRAILER!!!", 0, 0, 0, 0)
	return c.err
}
