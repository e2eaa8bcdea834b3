package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"

	"github.com/thawfs/thaw/cmd/thaw/internal/guestmem"
)

// Memory is the memory of a checkpoint, as a stream is composed from it. Methods are called by many
// goroutines at once.
type Memory interface {
	Size() int64 // in bytes
	// NextZero is the first page from gfn on that is zero; the number of pages if there is none.
	NextZero(gfn uint64) uint64
	// DataBefore is how many pages before gfn are not zero.
	DataBefore(gfn uint64) uint64
	// ReadRange puts whole pages into dst.
	ReadRange(first uint64, dst []byte) error
}

// File is a stored file.
type File interface {
	io.ReaderAt
	io.Closer
}

const pageSize = guestmem.PageSize

// composed is a composed file: parts that follow each other.
type composed struct {
	parts []part
	size  int64
	files []File
}

// part is some bytes of the file, from start on.
type part struct {
	start, size int64
	io.ReaderAt
}

func (c *composed) add(size int64, r io.ReaderAt) {
	c.parts = append(c.parts, part{c.size, size, r})
	c.size += size
}

// ReadAt implements io.ReaderAt.
func (c *composed) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	i := sort.Search(len(c.parts), func(i int) bool { return c.parts[i].start+c.parts[i].size > off })
	for ; n < len(p) && i < len(c.parts); i++ {
		x := c.parts[i]
		at := off + int64(n) - x.start
		want := int(min(int64(len(p)-n), x.size-at))
		got, err := x.ReadAt(p[n:n+want], at)
		n += got
		if got < want {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close closes the stored files.
func (c *composed) Close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// compose opens the stream of a memory and of stored files. It is an error if its size is not the one that
// was told.
func (s *stream) compose(m Memory, open func(name string) (File, error)) (_ *composed, err error) {
	c := &composed{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	stored := func(name string) (f File, size int64, err error) {
		if f, err = open(name); err != nil {
			return nil, 0, fmt.Errorf("open %s: %w", name, err)
		}
		c.files = append(c.files, f)
		size, err = sizeOf(f)
		return f, size, err
	}
	if s.head != "" {
		f, size, err := stored(s.head)
		if err != nil {
			return nil, err
		}
		c.add(size, guestmem.RawLibvirtHeader(f))
	}
	f, size, err := stored(stateFile)
	if err != nil {
		return nil, err
	}
	q, err := guestmem.FindQEMURecords(stateFile, io.NewSectionReader(f, 0, size))
	if err != nil {
		return nil, err
	}
	c.add(q.At, f)
	if err := c.addBlocks(m, q.Blocks); err != nil {
		return nil, err
	}
	c.add(size-q.At, io.NewSectionReader(f, q.At, size-q.At))
	if c.size != s.size {
		return nil, fmt.Errorf("it has %d bytes, and its checkpoint tells of %d: the blocks in its state are not "+
			"those in info.json", c.size, s.size)
	}
	return c, nil
}

// addBlocks adds the records of the pages of all blocks, which have to be the whole memory.
func (c *composed) addBlocks(m Memory, blocks []guestmem.QEMUBlock) error {
	end := int64(0)
	for _, b := range blocks {
		if b.Base != end || b.Size > m.Size()-end || len(b.Name) > math.MaxUint8 {
			return fmt.Errorf("block %s of its state is not in a memory of %d bytes", b.Name, m.Size())
		}
		end += b.Size
		r := newRecords(m, b)
		c.add(r.start(r.pages), r)
	}
	if end != m.Size() {
		return fmt.Errorf("the blocks of its state have %d bytes, and its memory %d", end, m.Size())
	}
	return nil
}

// sizeOf is the size of a stored file.
func sizeOf(f File) (int64, error) {
	if s, ok := f.(interface{ Size() int64 }); ok {
		return s.Size(), nil
	}
	return 0, errors.New("the size of a stored file is not known")
}

// recordBytes is how much records of pages take, without the names of blocks.
func recordBytes(data, zero uint64) int64 {
	return int64(data)*guestmem.QEMUPageRecord + int64(zero)*guestmem.QEMUZeroRecord
}

// records are those of the pages of a block.
type records struct {
	m     Memory
	name  string
	first uint64 // page of the image
	pages uint64
	data  uint64 // pages before first that are not zero
}

func newRecords(m Memory, b guestmem.QEMUBlock) *records {
	first := uint64(b.Base / pageSize)
	return &records{m, b.Name, first, uint64(b.Size / pageSize), m.DataBefore(first)}
}

// start is where the record of a page begins.
func (r *records) start(page uint64) int64 {
	if page == 0 {
		return 0
	}
	data := r.m.DataBefore(r.first+page) - r.data
	return recordBytes(data, page-data) + int64(1+len(r.name))
}

// ReadAt implements io.ReaderAt. It is called for bytes that are there.
func (r *records) ReadAt(p []byte, off int64) (int, error) {
	// The last page whose record does not begin behind off.
	page := uint64(sort.Search(int(r.pages), func(i int) bool { return r.start(uint64(i)+1) > off }))
	skip := int(off - r.start(page))
	n := 0
	for n < len(p) && page < r.pages {
		zero := r.m.NextZero(r.first+page) - r.first
		if zero == page {
			n += r.copy(p[n:], skip, page, nil)
			skip, page = 0, page+1
			continue
		}
		count := min(zero, r.pages) - page
		count = min(count, uint64(skip+len(p)-n)/guestmem.QEMUPageRecord+1)
		buf := make([]byte, count*pageSize)
		if err := r.m.ReadRange(r.first+page, buf); err != nil {
			return n, err
		}
		for ; count > 0; count-- {
			n += r.copy(p[n:], skip, page, buf[:pageSize])
			skip, page, buf = 0, page+1, buf[pageSize:]
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// copy puts the record of a page without its first skip bytes into p, as far as that goes; content is nil if
// the page is zero.
func (r *records) copy(p []byte, skip int, page uint64, content []byte) int {
	word := page * pageSize
	var head [guestmem.QEMUHeader + 1 + math.MaxUint8 + 1]byte
	n := guestmem.QEMUHeader
	if page == 0 {
		head[n] = byte(len(r.name))
		n += 1 + copy(head[n+1:], r.name)
	} else {
		word |= guestmem.QEMUContinue
	}
	if content == nil {
		word |= guestmem.QEMUZero
		n++ // the byte that it is filled with
	} else {
		word |= guestmem.QEMUPage
	}
	binary.BigEndian.PutUint64(head[:], word)
	done := 0
	if skip < n {
		done = copy(p, head[skip:n])
		skip = n
	}
	if skip-n < len(content) {
		done += copy(p[done:], content[skip-n:])
	}
	return done
}
