package guestmem

import (
	"bufio"
	"encoding/binary"
	"io"
)

// xzGuard is a reader of a file of xz that ends where a block begins which needs much memory. It follows the
// frame of the file, and says nothing of what else may be wrong with it:
//
//	file     streams, and between them room: four zero bytes, or more of them
//	stream   header (12 bytes; the low half of byte 7 is the kind of the checksums), blocks, index,
//	         footer (12 bytes)
//	block    header: length/4 - 1 (1 byte, not 0), flags, its sizes as varints (0x40 and 0x80 of the flags;
//	         "xz -T" writes them), filters; chunks, room up to a multiple of four, a checksum
//	chunk    0: the last one; 1 and 2: length - 1 (2 bytes), and the bytes as they are; from 0x80 on: 2 bytes,
//	         length - 1 (2 bytes), from 0xc0 on a byte more, and the compressed bytes
//	index    0, the number of records, two varints for each, room up to a multiple of four, 4 bytes
//
// The package that decompresses knows only blocks with one filter, LZMA2: 0x21, 1, and the size of the
// dictionary.
type xzGuard struct {
	r    *bufio.Reader
	left int64 // bytes up to the next place to look at
	part func(*xzGuard) error

	check   int64  // bytes of a checksum in this stream
	length  int64  // of this block or index, up to the next place to look at
	numbers uint64 // of the index that are still to come
}

func newXZGuard(r *bufio.Reader) *xzGuard { return &xzGuard{r: r, part: (*xzGuard).stream} }

// Read implements io.Reader.
func (g *xzGuard) Read(p []byte) (int, error) {
	if err := g.look(); err != nil {
		return 0, err
	}
	n, err := g.r.Read(p[:min(int64(len(p)), g.left)])
	g.left -= int64(n)
	return n, err
}

// ReadByte implements io.ByteReader: without it the decompressor would read single bytes by Read.
func (g *xzGuard) ReadByte() (byte, error) {
	if err := g.look(); err != nil {
		return 0, err
	}
	b, err := g.r.ReadByte()
	if err == nil {
		g.left--
	}
	return b, err
}

func (g *xzGuard) look() error {
	for g.left == 0 {
		if err := g.part(g); err != nil {
			return err
		}
	}
	return nil
}

// pass lets n bytes pass, and then looks at the next part.
func (g *xzGuard) pass(n int64, next func(*xzGuard) error) error {
	g.left, g.part = n, next
	g.length += n
	return nil
}

// rest lets everything pass: the decompressor says what is wrong with it.
func (g *xzGuard) rest() error { return g.pass(1<<62, (*xzGuard).rest) }

// peek returns the next n bytes. If they are not there, that is left to the decompressor.
func (g *xzGuard) peek(n int) (b []byte, ok bool) {
	b, err := g.r.Peek(n)
	return b, err == nil
}

func (g *xzGuard) stream() error {
	b, ok := g.peek(4)
	if ok && binary.LittleEndian.Uint32(b) == 0 {
		return g.pass(4, (*xzGuard).stream)
	}
	if b, ok = g.peek(12); !ok {
		return g.rest()
	}
	g.check = [...]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[b[7]&15]
	return g.pass(12, (*xzGuard).block)
}

func (g *xzGuard) block() error {
	b, ok := g.peek(1)
	if ok && b[0] == 0 {
		g.length = 0
		return g.pass(1, (*xzGuard).index)
	}
	n := 0
	if ok {
		n = (int(b[0]) + 1) * 4
		b, ok = g.peek(n)
	}
	if !ok {
		return g.rest()
	}
	flags, filters := b[1], b[2:]
	for _, size := range []byte{0x40, 0x80} {
		if flags&size != 0 {
			_, n := binary.Uvarint(filters)
			filters = filters[max(n, 0):]
		}
	}
	if len(filters) > 2 && filters[0] == 0x21 && filters[1] == 1 && filters[2] > 32 { // 2 << (32/2+11): 256 MiB
		return errWindow
	}
	err := g.pass(int64(n), (*xzGuard).chunk)
	g.length = 0 // that of a header is a multiple of four
	return err
}

func (g *xzGuard) chunk() error {
	b, ok := g.peek(1)
	if ok && b[0] == 0 {
		return g.pass(1+(3-g.length%4)+g.check, (*xzGuard).block)
	}
	if b, ok = g.peek(5); !ok {
		return g.rest()
	}
	switch c := b[0]; {
	case c == 1 || c == 2:
		return g.pass(3+1+int64(binary.BigEndian.Uint16(b[1:])), (*xzGuard).chunk)
	case c >= 0xc0:
		return g.pass(6+1+int64(binary.BigEndian.Uint16(b[3:])), (*xzGuard).chunk)
	case c >= 0x80:
		return g.pass(5+1+int64(binary.BigEndian.Uint16(b[3:])), (*xzGuard).chunk)
	}
	return g.rest()
}

// varint passes a number.
func (g *xzGuard) varint(next func(*xzGuard) error) (uint64, error) {
	b, err := g.r.Peek(binary.MaxVarintLen64)
	if err != nil && err != io.EOF {
		return 0, g.rest()
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, g.rest()
	}
	return v, g.pass(int64(n), next)
}

func (g *xzGuard) index() (err error) {
	n, err := g.varint((*xzGuard).record)
	g.numbers = min(n, 1<<62) * 2
	return err
}

func (g *xzGuard) record() error {
	if g.numbers == 0 {
		return g.pass((4-g.length%4)%4+4+12, (*xzGuard).stream)
	}
	g.numbers--
	_, err := g.varint((*xzGuard).record)
	return err
}
