// Package cpio writes archives in the format that the Linux kernel unpacks as its initramfs ("newc":
// Documentation/driver-api/early-userspace/buffer-format.rst): for each file a header of thirteen
// hexadecimal numbers, the name, the data, the last two padded to four bytes.
package cpio

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

// Writer writes an archive. Names are relative to the root. A file's directories are written before it,
// as the kernel requires. The first error is kept, and Close returns it.
type Writer struct {
	w     io.Writer
	inode uint32
	dirs  map[string]bool
	off   int64
	err   error
}

// New begins an archive.
func New(w io.Writer) *Writer {
	return &Writer{w: w, dirs: map[string]bool{"": true, ".": true}}
}

// write keeps the first error; later calls do nothing.
func (c *Writer) write(p []byte) {
	if c.err != nil {
		return
	}
	var n int
	n, c.err = c.w.Write(p)
	c.off += int64(n)
}

func (c *Writer) pad() {
	if rest := c.off % 4; rest != 0 {
		c.write(make([]byte, 4-rest))
	}
}

// entry writes one header with its name; size bytes of data must follow.
func (c *Writer) entry(name string, mode uint32, size int, rdevMajor, rdevMinor uint32) {
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

// MkdirAll writes the directory and its missing parents.
func (c *Writer) MkdirAll(dir string) {
	if c.dirs[dir] {
		return
	}
	if i := strings.LastIndexByte(dir, '/'); i >= 0 {
		c.MkdirAll(dir[:i])
	}
	c.dirs[dir] = true
	c.entry(dir, modeDir|0o755, 0, 0, 0)
}

// File writes a regular file; name is relative to the root.
func (c *Writer) File(name string, perm uint32, data []byte) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		c.MkdirAll(name[:i])
	}
	c.entry(name, modeRegular|perm, len(data), 0, 0)
	c.write(data)
	c.pad()
}

// Symlink writes a symbolic link.
func (c *Writer) Symlink(name, target string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		c.MkdirAll(name[:i])
	}
	c.entry(name, modeSymlink|0o777, len(target), 0, 0)
	c.write([]byte(target))
	c.pad()
}

// CharDevice writes a device node: the kernel opens /dev/console before init can mount devtmpfs.
func (c *Writer) CharDevice(name string, major, minor uint32) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		c.MkdirAll(name[:i])
	}
	c.entry(name, modeChar|0o600, 0, major, minor)
}

// Close writes the trailer.
func (c *Writer) Close() error {
	c.inode = 0
	c.entry("TRAILER!!!", 0, 0, 0, 0)
	return c.err
}
