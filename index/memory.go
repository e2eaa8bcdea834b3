package index

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Memory is the image of a machine's memory that an import reads: a file ([OpenMemory]), or
// anything else that has its pages.
type Memory interface {
	// ReadAt is called by many goroutines at once, for whole pages within the size.
	io.ReaderAt
	// Size is in bytes, a multiple of 4096.
	Size() int64
	// Extents returns the pages that may hold data, as ascending runs. What is outside of them is
	// taken for zeros and never read.
	Extents() ([]Run, error)
}

// MemoryFile is an image in a file.
type MemoryFile struct {
	f    *os.File
	size int64
}

var _ Memory = (*MemoryFile)(nil)

// OpenMemory opens an image for reading. An *ImageError if path cannot be one.
func OpenMemory(path string) (*MemoryFile, error) {
	// Without O_NONBLOCK the open of a FIFO would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &ImageError{Path: path, Why: "it cannot be opened", Err: err}
	}
	st, err := f.Stat()
	why := ""
	switch {
	case err != nil:
		why = "its size is not known"
	case st.IsDir():
		why = "it is a directory"
	case !st.Mode().IsRegular():
		why = "it is not a regular file"
	default:
		why = badSize(st.Size())
	}
	if why != "" {
		f.Close()
		return nil, &ImageError{Path: path, Why: why, Err: err}
	}
	return &MemoryFile{f: f, size: st.Size()}, nil
}

// badSize says why no image can have this size; nothing if one can.
func badSize(size int64) string {
	switch {
	case size <= 0:
		return "it is empty"
	case size%PageSize != 0:
		return fmt.Sprintf("its size, %d bytes, is not a multiple of %d", size, PageSize)
	case size/PageSize > maxPages:
		return fmt.Sprintf("its size, %d bytes, is more than 16 TiB", size)
	}
	return ""
}

// ReadAt implements Memory.
func (m *MemoryFile) ReadAt(p []byte, off int64) (int, error) { return m.f.ReadAt(p, off) }

// Map maps a part of the file for reading. Reading a part that another process has cut off meanwhile is a
// fault (SIGBUS).
func (m *MemoryFile) Map(off int64, n int) (b []byte, unmap func() error, err error) {
	conn, err := m.f.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	cerr := conn.Control(func(fd uintptr) {
		b, err = unix.Mmap(int(fd), off, n, unix.PROT_READ, unix.MAP_SHARED)
	})
	if cerr != nil {
		return nil, nil, cerr
	}
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	// It is read from end to end: so the kernel reads ahead. It works without.
	_ = unix.Madvise(b, unix.MADV_SEQUENTIAL)
	return b, func() error { return unix.Munmap(b) }, nil
}

// Size implements Memory.
func (m *MemoryFile) Size() int64 { return m.size }

// Close closes the file.
func (m *MemoryFile) Close() error { return m.f.Close() }

// Extents implements Memory: it returns what is not a hole of the file.
func (m *MemoryFile) Extents() ([]Run, error) {
	var out []Run
	for off := int64(0); off < m.size; {
		start, err := unix.Seek(int(m.f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		if errors.Is(err, unix.EINVAL) {
			return []Run{{0, uint64(m.size) / PageSize}}, nil // a file system without holes
		}
		if err != nil {
			return nil, fmt.Errorf("find holes of %s: %w", m.f.Name(), err)
		}
		end, err := unix.Seek(int(m.f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("find holes of %s: %w", m.f.Name(), err)
		}
		end = min(end, m.size)
		first, last := uint64(start)/PageSize, (uint64(end)+PageSize-1)/PageSize
		if n := len(out); n > 0 && out[n-1].GFN+out[n-1].Count >= first {
			out[n-1].Count = last - out[n-1].GFN
		} else if last > first {
			out = append(out, Run{first, last - first})
		}
		off = max(end, off+1)
	}
	return out, nil
}

// Open opens the image; done ends its use.
func (src Source) Open() (m Memory, done func(), err error) {
	if src.Image != nil {
		if why := badSize(src.Image.Size()); why != "" {
			return nil, nil, &ImageError{Path: src.Memory, Why: why}
		}
		return src.Image, func() {}, nil
	}
	f, err := OpenMemory(src.Memory)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil // it was only read
}

// sourceMemory is the image of one import.
type sourceMemory struct {
	Memory
	name  string
	pages uint64
	close func()
}

func (src Source) openMemory() (*sourceMemory, error) {
	if src.Stream != nil {
		return &sourceMemory{name: src.Memory, close: func() {}}, nil
	}
	m, done, err := src.Open()
	if err != nil {
		return nil, err
	}
	return &sourceMemory{Memory: m, name: src.Memory, pages: uint64(m.Size()) / PageSize, close: done}, nil
}

// extents returns the pages that may hold data. It checks what the Memory says.
func (m *sourceMemory) extents() ([]Run, error) {
	runs, err := m.Extents()
	if err != nil {
		return nil, err
	}
	end := uint64(0)
	for _, r := range runs {
		if r.Count == 0 || r.GFN < end || r.GFN >= m.pages || r.Count > m.pages-r.GFN {
			return nil, &ImageError{Path: m.name, Why: fmt.Sprintf(
				"it has an extent of %d pages from %d on, behind page %d, of %d",
				r.Count, r.GFN, end, m.pages)}
		}
		end = r.GFN + r.Count
	}
	return runs, nil
}

// read reads the pages gfns into buf; neighbours are read together.
func (m *sourceMemory) read(gfns []uint64, buf []byte) error {
	for i := 0; i < len(gfns); {
		j := i + 1
		for j < len(gfns) && gfns[j] == gfns[j-1]+1 {
			j++
		}
		n, err := m.ReadAt(buf[i*PageSize:j*PageSize], int64(gfns[i])*PageSize)
		// At its end a Memory may give all the bytes and io.EOF. Any other error says that they are not to
		// be believed: the file changed, for example.
		if whole := n == (j-i)*PageSize; !whole || err != nil && err != io.EOF {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read %s at page %d: %w", m.name, gfns[i], err)
		}
		i = j
	}
	return nil
}
