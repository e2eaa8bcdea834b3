package native

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/thawfs/thaw/index"
)

// ErrNoNames: a checkpoint is not called anything else than it is by thaw.
var ErrNoNames = errors.New("it has no names of another VMM")

// Export gives what was exported to a directory the names, and where the VMM has one file the form, that the
// VMM knows. ErrNoNames if there are none; the directory is as it was then.
func Export(dir string, c *index.Checkpoint) error {
	path := func(name string) string { return filepath.Join(dir, name) }
	if name := memoryName(c); name != "" {
		return os.Rename(path(memoryFile), path(name))
	}
	s := streamOf(c)
	if s == nil {
		return ErrNoNames
	}
	if err := s.export(path, c.DataPages); err != nil {
		return fmt.Errorf("compose %s: %w", s.name, err)
	}
	for _, name := range []string{memoryFile, stateFile, s.head} {
		if name == "" {
			continue
		}
		if err := os.Remove(path(name)); err != nil {
			return err
		}
	}
	return nil
}

// export writes the stream beside the files that it is made of. It is durable when export returns.
// data is how many pages of the memory are not zero.
func (s *stream) export(path func(name string) string, data uint64) (err error) {
	f, err := index.OpenMemory(path(memoryFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	m, err := newFileMemory(f, data)
	if err != nil {
		return err
	}
	c, err := s.compose(m, func(name string) (File, error) {
		f, err := os.Open(path(name))
		if err != nil {
			return nil, err
		}
		return osFile{f}, nil
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	out, err := os.OpenFile(path(s.name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(writerOnly{out}, io.NewSectionReader(c, 0, c.size), make([]byte, 1<<20))
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// writerOnly hides what io.Copy would use instead of the buffer.
type writerOnly struct{ io.Writer }

// osFile is a file that knows its size.
type osFile struct{ *os.File }

// Size is 0 for a file that cannot be looked at, which is one byte too few for any stream.
func (f osFile) Size() int64 {
	st, err := f.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

// fileMemory is a memory file whose zero pages are in no run.
type fileMemory struct {
	*index.MemoryFile
	runs   []index.Run
	before []uint64 // pages in the runs before each
}

// newFileMemory finds the zero pages: they are the holes, unless the file system tells of larger ones only.
func newFileMemory(f *index.MemoryFile, data uint64) (*fileMemory, error) {
	runs, err := f.Extents()
	if err != nil {
		return nil, err
	}
	m := &fileMemory{MemoryFile: f}
	if m.setRuns(runs) != data {
		if runs, err = m.nonZero(runs); err != nil {
			return nil, err
		}
		m.setRuns(runs)
	}
	return m, nil
}

// setRuns sets the runs, and counts their pages.
func (m *fileMemory) setRuns(runs []index.Run) (pages uint64) {
	m.runs, m.before = runs, make([]uint64, len(runs))
	for i, r := range runs {
		m.before[i] = pages
		pages += r.Count
	}
	return pages
}

// nonZero are the runs without their zero pages.
func (m *fileMemory) nonZero(runs []index.Run) (out []index.Run, err error) {
	page, zero := make([]byte, pageSize), make([]byte, pageSize)
	for _, r := range runs {
		for gfn := r.GFN; gfn < r.GFN+r.Count; gfn++ {
			if err := m.ReadRange(gfn, page); err != nil {
				return nil, err
			}
			if bytes.Equal(page, zero) {
				continue
			}
			if n := len(out); n > 0 && out[n-1].GFN+out[n-1].Count == gfn {
				out[n-1].Count++
			} else {
				out = append(out, index.Run{GFN: gfn, Count: 1})
			}
		}
	}
	return out, nil
}

// NextZero implements Memory.
func (m *fileMemory) NextZero(gfn uint64) uint64 {
	i := sort.Search(len(m.runs), func(i int) bool { return m.runs[i].GFN+m.runs[i].Count > gfn })
	for ; i < len(m.runs) && m.runs[i].GFN <= gfn; i++ {
		gfn = m.runs[i].GFN + m.runs[i].Count
	}
	return min(gfn, uint64(m.Size())/pageSize)
}

// DataBefore implements Memory.
func (m *fileMemory) DataBefore(gfn uint64) uint64 {
	i := sort.Search(len(m.runs), func(i int) bool { return m.runs[i].GFN > gfn }) - 1
	if i < 0 {
		return 0
	}
	return m.before[i] + min(gfn-m.runs[i].GFN, m.runs[i].Count)
}

// ReadRange implements Memory.
func (m *fileMemory) ReadRange(first uint64, dst []byte) error {
	n, err := m.ReadAt(dst, int64(first)*pageSize)
	if n == len(dst) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
