package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob/disk"
)

// A restore is measured on a host that was made ready for it: what lies on the disk is as cold as
// the disk asks for, and free memory is the host's to give.

// settle makes the files below a path ready. On the host's own disk they leave the page cache. A
// modelled disk takes its time for each read as it is: there the host's own must not come on top.
func settle(ctx context.Context, path, onDisk string) error {
	ready := warmFile
	if onDisk == disk.Native {
		ready = dropFile
	}
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || !d.Type().IsRegular() {
			return err
		}
		return ready(path)
	})
	if err != nil {
		return fmt.Errorf("make the files ready: %w", err)
	}
	return nil
}

// dropFile takes a file out of the page cache. What of it is not on disk yet is written first: it
// would stay otherwise.
func dropFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// warmFile brings a file into the page cache.
func warmFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// Not io.Discard's own buffer of 8 KiB, and no splice: the pages have to be read.
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f},
		make([]byte, 1<<20))
	return err
}

// touchMemory takes memory and gives it back. Where this host is a virtual machine itself, memory
// that was free for a while has gone back to where it came from, and the first touch of a page
// costs many times what it costs on hardware: a restore that allocates more would pay for it. It
// takes no more than a half of what is free.
func touchMemory(size uint64) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("ask for free memory: %w", err)
	}
	size = min(size, info.Freeram*uint64(info.Unit)/2)
	if size == 0 {
		return nil
	}
	m, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return fmt.Errorf("touch memory: %w", err)
	}
	// A kernel before 5.14 has no such advice. Nothing depends on it.
	if err := unix.Madvise(m, unix.MADV_POPULATE_WRITE); err != nil && !errors.Is(err, unix.EINVAL) {
		return errors.Join(fmt.Errorf("touch memory: %w", err), unix.Munmap(m))
	}
	return unix.Munmap(m)
}
