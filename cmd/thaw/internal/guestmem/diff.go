package guestmem

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"syscall"

	"golang.org/x/sys/unix"
)

// A diff is a memory file whose holes mean "as in the parent". So it can be read only where a file system
// tells holes page by page; one with larger blocks would show pages as zeros that did not change.

// diff is the memory of a diff, before its parent is known.
type diff struct {
	f    *file
	data []Run // the pages that it has
}

// openDiff makes the saved machine that of a diff, which [Saved.Over] completes.
func (s *Saved) openDiff(f *file) error {
	bad := &FormatError{Path: f.path, Format: "no diff that can be imported"}
	if err := fineHoles(f); err != nil {
		bad.Why, bad.Do = err.Error(), "take the diff on a file system with blocks of 4 KiB (ext4, XFS, tmpfs); "+
			"a copy of this one has lost its holes already"
		return bad
	}
	d := &diff{f: f}
	var data runs
	odd := false
	err := f.eachData(0, f.size, func(from, end int64) {
		odd = odd || (from|end)%PageSize != 0
		data.add(from, end)
	})
	if err != nil {
		return err
	}
	d.data = data
	switch {
	case odd:
		bad.Why = "its holes are not whole pages"
	case len(data) == 1 && data[0] == Run{0, uint64(f.size) / PageSize}:
		bad.Why, bad.Do = errSolid.Error(), "if it is a full memory, import it without --parent"
	default:
		s.diff = d
		return nil
	}
	return bad
}

// IsDiff says whether the memory is that of a diff: Over has to give it its parent's.
func (s *Saved) IsDiff() bool { return s.diff != nil }

// Over completes a diff by the memory of its parent.
func (s *Saved) Over(parent Memory) error {
	if parent.Size() != s.diff.f.size {
		return &FormatError{Path: s.Path, Format: "not a diff of this parent",
			Why: fmt.Sprintf("it has %d bytes, and the parent %d", s.diff.f.size, parent.Size()),
			Do:  "give the checkpoint that the diff was taken from (--parent)"}
	}
	s.Memory = &overlay{s.diff, parent}
	return nil
}

// overlay is a diff over its parent.
type overlay struct {
	*diff
	parent Memory
}

// Size implements Memory.
func (o *overlay) Size() int64 { return o.f.size }

// ReadAt implements Memory.
func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	end := min(off+int64(len(p)), o.f.size)
	done := off
	for done < end {
		page := uint64(done) / PageSize
		i := sort.Search(len(o.data), func(i int) bool { return o.data[i].First+o.data[i].Count > page })
		from, stop := io.ReaderAt(o.parent), end
		switch {
		case i < len(o.data) && o.data[i].First <= page:
			from, stop = o.f, min(end, int64(o.data[i].First+o.data[i].Count)*PageSize)
		case i < len(o.data):
			stop = min(end, int64(o.data[i].First)*PageSize)
		}
		n, err := from.ReadAt(p[done-off:stop-off], done)
		if n < int(stop-done) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return int(done-off) + n, err
		}
		done = stop
	}
	if int64(len(p)) > end-off {
		return int(end - off), io.EOF
	}
	return len(p), nil
}

// Extents implements Memory: what the diff or the parent has.
func (o *overlay) Extents() ([]Run, error) {
	old, err := o.parent.Extents()
	if err != nil {
		return nil, err
	}
	var out runs
	mine := o.data
	for len(old) > 0 || len(mine) > 0 {
		next := &old
		if len(old) == 0 || len(mine) > 0 && mine[0].First < old[0].First {
			next = &mine
		}
		r := (*next)[0]
		*next = (*next)[1:]
		out.add(int64(r.First)*PageSize, int64(r.First+r.Count)*PageSize)
	}
	return out, nil
}

// fineHoles says why the file system of a file does not tell holes page by page. It tries, where it may
// write; else it goes by what the file system says of itself.
func fineHoles(f *file) error {
	dir := filepath.Dir(f.path)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		probe := os.NewFile(uintptr(fd), filepath.Join(dir, "a probe"))
		defer probe.Close()
		fine, err := probeHoles(probe)
		if err == nil && !fine {
			return errors.New("its file system tells holes only in blocks larger than a page")
		}
		if err == nil {
			return nil
		}
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return err
	}
	return coarse(int64(fs.Type), max(fs.Bsize, blockSize(f.before)))
}

// blockSize is the size of the blocks of a file, as its file system tells it.
func blockSize(st os.FileInfo) int64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return int64(s.Blksize)
	}
	return 0
}

// coarse judges a file system by its type and the size of its blocks.
func coarse(kind, block int64) error {
	const zfs = 0x2fc12fc1
	switch {
	case kind == zfs || block > PageSize:
		return fmt.Errorf("its file system tells holes in blocks of more than a page (%d bytes)", block)
	case kind == unix.NFS_SUPER_MAGIC || kind == unix.SMB2_SUPER_MAGIC || kind == unix.FUSE_SUPER_MAGIC ||
		kind == unix.V9FS_MAGIC:
		return errors.New("whether its file system tells holes page by page cannot be found out here")
	}
	return nil
}

// probeHoles writes some pages into an empty file, and looks whether exactly these are data.
func probeHoles(f *os.File) (bool, error) {
	const size = 1 << 20
	want := []int64{1, 5, 38, 200}
	if err := f.Truncate(size); err != nil {
		return false, err
	}
	for _, page := range want {
		if _, err := f.WriteAt(zeroPage, page*PageSize); err != nil { // zeros are data, too
			return false, err
		}
	}
	if err := f.Sync(); err != nil {
		return false, err
	}
	i := 0
	fine := true
	probe := &file{File: f, size: size, path: f.Name()}
	err := probe.eachData(0, size, func(from, end int64) {
		fine = fine && i < len(want) && from == want[i]*PageSize && end == from+PageSize
		i++
	})
	return fine && i == len(want), err
}
