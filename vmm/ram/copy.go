package ram

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/thawfs/thaw/wss"
)

const copyWorkers = 2 // so that one chunk is read while another is written

// Target is the empty file that a copy of memory is written to.
type Target interface {
	io.WriterAt
	Truncate(size int64) error
}

// CopyTo writes the guest's memory, as the guest sees it, into a file. Zero pages become holes. written
// is in bytes, without holes. The guest must be paused.
//
// In a private mapping only pages that the guest has changed are read through the mapping. All others
// are read from the files behind it, so a checkpoint does not touch pages that the guest has not
// touched.
func (m *Memory) CopyTo(ctx context.Context, dst Target) (written uint64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := &copier{mem: m, dst: dst, runs: Chunks(PageRun{0, m.size / pageSize})}
	if m.tracker != nil {
		if _, c.mapped, err = m.scanLocked(); err != nil {
			return 0, err
		}
		if m.own != nil {
			c.mapped = c.mapped.Or(m.own)
		}
	}
	return c.run(ctx)
}

// CopyChanged writes the pages that changed since the memory was mapped from its checkpoint, and lists
// them in at most limit runs, which may include unchanged pages. written is in bytes, without holes.
func (m *Memory) CopyChanged(ctx context.Context, dst Target, limit int) (runs []PageRun,
	written uint64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := &copier{mem: m, dst: dst}
	if _, c.mapped, err = m.scanLocked(); err != nil {
		return nil, 0, err
	}
	runs = RunsOf(c.mapped, limit)
	for _, r := range runs {
		c.runs = append(c.runs, Chunks(r)...)
	}
	if m.own != nil {
		c.mapped = c.mapped.Or(m.own)
	}
	written, err = c.run(ctx)
	return runs, written, err
}

// copier is one copy.
type copier struct {
	mem     *Memory
	dst     Target
	runs    []PageRun   // what to copy, none longer than a chunk
	mapped  *wss.Bitmap // pages to read through the mapping, others from the files; nil: all
	next    atomic.Int64
	written atomic.Uint64
}

func (c *copier) run(ctx context.Context) (written uint64, err error) {
	if err := c.dst.Truncate(int64(c.mem.size)); err != nil {
		return 0, err
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
	for _, s := range sourcesOf(c.mem.pieces) {
		if err := s.checkSize(c.mem.size); err != nil {
			return 0, err
		}
	}
	return c.written.Load(), nil
}

func (c *copier) work(ctx context.Context) error {
	buf := make([]byte, copyChunk)
	for ctx.Err() == nil {
		i := c.next.Add(1) - 1
		if i >= int64(len(c.runs)) {
			return nil
		}
		chunk := buf[:c.runs[i].Count*pageSize]
		empty, err := c.read(chunk, c.runs[i].First)
		if err != nil {
			return err
		}
		if empty {
			continue
		}
		if err := c.writeRuns(chunk, int64(c.runs[i].First*pageSize)); err != nil {
			return err
		}
	}
	return nil
}

// read fills a chunk. empty says that it is all zeros.
func (c *copier) read(chunk []byte, first uint64) (empty bool, err error) {
	if empty, err = readPages(c.mem.pieces, chunk, first); err != nil || c.mapped == nil {
		return empty, err
	}
	for at, end := first, first+uint64(len(chunk))/pageSize; at < end; {
		from := at
		for at < end && c.mapped.Has(at) {
			at++
		}
		if at == from {
			at++
			continue
		}
		empty = false
		p := chunk[(from-first)*pageSize : (at-first)*pageSize]
		if _, err := c.mem.transfer(p, from*pageSize, mapping.read); err != nil {
			return false, err
		}
	}
	return empty, nil
}

var zeroPage [pageSize]byte

// writeRuns writes those pages of a chunk that are not zero.
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
			return fmt.Errorf("write memory at %#x: %w", off+int64(from), err)
		}
		c.written.Add(uint64(i - from))
	}
	return nil
}
