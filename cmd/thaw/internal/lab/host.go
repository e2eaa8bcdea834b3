package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index/blob/disk"
)

// What the host has to be like before something is measured on it: it can run machines, its page
// cache is what the disk of the comparison asks for, and its free memory is at hand.

// checkKVM says what the host lacks for a machine.
func checkKVM() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return exitcode.WithHint(exitcode.Unsupported, fmt.Errorf("this host cannot run machines: %w",
			err),
			`load the module kvm_intel or kvm_amd, get into the group "kvm", or allow nested `+
				`virtualisation; "thaw doctor" tells more`)
	}
	return f.Close()
}

// prepareCache brings the files below a path into the page cache or out of it. Those on the host's
// own disk leave it: they are to be cold. Those on a simulated disk are brought: their reads take
// the simulated time, and the time of the host's own disk must not be added to that.
func prepareCache(ctx context.Context, path, onDisk string) error {
	prepare := func(path string) error { return fillCache(ctx, path) }
	if onDisk == disk.Native {
		prepare = func(path string) error { return dropCache(ctx, path) }
	}
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || !d.Type().IsRegular() {
			return err
		}
		return prepare(path)
	})
	if err != nil {
		return fmt.Errorf("prepare the page cache: %w", err)
	}
	return nil
}

// chunk is how much of something that takes long is done between two looks at whether to stop.
const chunk = 64 << 20

// dropCache takes a file out of the page cache. Pages that are not on disk yet are written first:
// they would stay otherwise.
func dropCache(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	const write = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for off := int64(0); off < st.Size(); off += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		if unix.SyncFileRange(int(f.Fd()), off, chunk, write) != nil {
			break // not every file system can; Sync tells what is wrong
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// fillCache brings a file into the page cache.
func fillCache(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// The plain interfaces keep io.CopyBuffer from the buffer of io.Discard, which has only 8 KiB, and
	// from splice, which need not read the pages: they have no ReadFrom and no WriteTo.
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, untilDone{ctx, f}, make([]byte, 1<<20))
	return err
}

// untilDone reads until a context ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// populateMemory takes memory and gives it back. Where this host is a virtual machine itself, memory
// that was free for a while has gone back to its own host, and the first touch of a page costs many
// times what it costs on hardware: a restore that allocates more would pay for it. At most a half of
// the free memory is taken.
func populateMemory(ctx context.Context, size uint64) error {
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
		return fmt.Errorf("populate memory: %w", err)
	}
	for off := 0; off < len(m) && err == nil; off += chunk {
		if err = ctx.Err(); err == nil {
			err = unix.Madvise(m[off:min(off+chunk, len(m))], unix.MADV_POPULATE_WRITE)
		}
	}
	// A kernel before 5.14 has no such advice. Nothing depends on it.
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return errors.Join(fmt.Errorf("populate memory: %w", err), unix.Munmap(m))
	}
	return unix.Munmap(m)
}
