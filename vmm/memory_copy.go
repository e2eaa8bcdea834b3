package vmm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

const (
	copyChunk   = 1 << 20 // bytes
	copyWorkers = 2       // reading one chunk while another is written
)

// copyTo writes the guest's memory, as the guest sees it, into an empty file. Pages of zeros become
// holes. The guest must stand still.
//
// Of a private mapping only the pages that the guest has changed are read through the mapping; all
// others are read from the file behind it, so that a checkpoint neither touches pages that the
// guest never did nor makes copies of them.
func (m *memory) copyTo(ctx context.Context, dst *os.File, t *tracker) (written uint64, err error) {
	if err := dst.Truncate(int64(m.size)); err != nil {
		return 0, err
	}
	c := &copier{mem: m, dst: dst}
	if m.private {
		if _, c.dirty, err = t.scan(); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range copyWorkers {
		wg.Go(func() {
			if err := c.work(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	return c.written.Load(), m.checkSize()
}

// checkSize makes sure that the file is still whole: what is missing at its end would pass for a
// hole.
func (m *memory) checkSize() error {
	st, err := m.file.Stat()
	if err == nil && uint64(st.Size()) < m.size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return &MemoryLostError{Sign: "the memory file is cut off", Err: err}
	}
	return nil
}

// copier is one run of copyTo.
type copier struct {
	mem     *memory
	dst     *os.File
	dirty   *wss.Bitmap // pages that are the mapping's own; nil: none, the file is the memory
	next    atomic.Int64
	written atomic.Uint64
}

var zeroPage [pageSize]byte

func (c *copier) work(ctx context.Context) error {
	buf := make([]byte, copyChunk)
	for ctx.Err() == nil {
		off := c.next.Add(copyChunk) - copyChunk
		if off >= int64(c.mem.size) {
			return nil
		}
		chunk := buf[:min(copyChunk, int64(c.mem.size)-off)]
		empty, err := c.read(chunk, off)
		if err != nil {
			return err
		}
		if empty {
			continue
		}
		if err := c.writeRuns(chunk, off); err != nil {
			return err
		}
	}
	return nil
}

// read fills a chunk. empty: nothing is there, and the chunk was not filled.
func (c *copier) read(chunk []byte, off int64) (empty bool, err error) {
	hole, err := c.isHole(off, int64(len(chunk)))
	if err != nil {
		return false, err
	}
	empty = hole
	if hole {
		clear(chunk)
	} else if _, err := c.mem.file.ReadAt(chunk, off); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return false, &MemoryLostError{GFN: uint64(off) / pageSize, Sign: fmt.Sprintf(
			"%d bytes at %#x of the memory file could not be read", len(chunk), off), Err: err}
	}
	if c.dirty == nil {
		return empty, nil
	}
	first := uint64(off) / pageSize
	for i := range uint64(len(chunk)) / pageSize {
		if !c.dirty.Has(first + i) {
			continue
		}
		empty = false
		p := chunk[i*pageSize : (i+1)*pageSize]
		if _, err := c.mem.ReadAt(p, off+int64(i*pageSize)); err != nil {
			return false, err
		}
	}
	return empty, nil
}

// isHole says whether a range of the file is one. File systems that cannot tell have no holes.
func (c *copier) isHole(off, n int64) (bool, error) {
	data, err := unix.Seek(int(c.mem.file.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return true, nil // none up to the end
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	case err != nil:
		return false, &MemoryLostError{GFN: uint64(off) / pageSize,
			Sign: fmt.Sprintf("the memory file does not tell what is at %#x", off), Err: err}
	}
	return data >= off+n, nil
}

// writeRuns writes the runs of pages that are not zero.
func (c *copier) writeRuns(chunk []byte, off int64) error {
	zero := func(i int) bool { return bytes.Equal(chunk[i:i+pageSize], zeroPage[:]) }
	for i := 0; i < len(chunk); {
		if zero(i) {
			i += pageSize
			continue
		}
		from := i
		for i < len(chunk) && !zero(i) {
			i += pageSize
		}
		if _, err := c.dst.WriteAt(chunk[from:i], off+int64(from)); err != nil {
			return err
		}
		c.written.Add(uint64(i - from))
	}
	return nil
}
