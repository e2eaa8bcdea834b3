package guestmem

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"hash/crc32"
	"io"
)

// A file of lzop, all numbers big endian:
//
//	"\x89LZO\0\r\n\x1a\n", version (2), version of the library (2), version that is needed (2), method (1),
//	level (1), flags (4), filter (4, with flag 0x800), mode (4), time (4), more of it (4), name behind its
//	length (1), checksum of all that (4)
//
// then blocks: length (4), 0 at the end; length when it is compressed (4); checksums (4 each) of the content,
// with flags 1 (Adler-32) and 0x100 (CRC-32), and of what is compressed, with flags 2 and 0x200. Those are
// not there if the block is stored as it is, because it is no smaller compressed. The methods are LZO1X,
// which has one decoder. There is no library for it that is kept.

const (
	lzopMagic     = "\x89LZO\x00\r\n\x1a\n"
	lzopMaxBlock  = 64 << 20 // of lzop itself
	lzopAdler     = 0x1
	lzopAdlerIn   = 0x2
	lzopExtra     = 0x40
	lzopCRC       = 0x100
	lzopCRCIn     = 0x200
	lzopMultipart = 0x400
	lzopFilter    = 0x800
	lzopHeadCRC   = 0x1000
)

// lzopReader decompresses a file of lzop.
type lzopReader struct {
	r     *bufio.Reader
	flags uint32
	in    []byte // of one block
	out   []byte
	left  []byte // of out, not yet read
	ended bool
}

// newLzopReader reads the header of a file.
func newLzopReader(r *bufio.Reader) (*lzopReader, error) {
	var head bytes.Buffer
	take := func(n int) []byte {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		if err != nil {
			return nil
		}
		head.Write(b)
		return b
	}
	magic := make([]byte, len(lzopMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != lzopMagic {
		return nil, errors.New("it does not begin with the magic of lzop")
	}
	fixed := take(2 + 2 + 2 + 1 + 1 + 4)
	if fixed == nil {
		return nil, io.ErrUnexpectedEOF
	}
	version, method, flags := binary.BigEndian.Uint16(fixed), fixed[6], binary.BigEndian.Uint32(fixed[8:])
	switch {
	case version < 0x0940:
		return nil, fmt.Errorf("it is of version %#x of lzop", version)
	case method < 1 || method > 3:
		return nil, fmt.Errorf("it was compressed by method %d of lzop", method)
	case flags&(lzopFilter|lzopMultipart|lzopExtra) != 0:
		return nil, fmt.Errorf("it has flags %#x of lzop", flags)
	}
	rest := take(4 + 4 + 4 + 1)
	if rest == nil || take(int(rest[12])) == nil {
		return nil, io.ErrUnexpectedEOF
	}
	want := checksum(flags&lzopHeadCRC != 0, head.Bytes())
	if b := take(4); b == nil || binary.BigEndian.Uint32(b) != want {
		return nil, errors.New("the checksum of its header is wrong")
	}
	return &lzopReader{r: r, flags: flags}, nil
}

// checksum is CRC-32 or Adler-32.
func checksum(crc bool, b []byte) uint32 {
	if crc {
		return crc32.ChecksumIEEE(b)
	}
	return adler32.Checksum(b)
}

// Read implements io.Reader.
func (l *lzopReader) Read(p []byte) (int, error) {
	for len(l.left) == 0 {
		if l.ended {
			return 0, io.EOF
		}
		if err := l.block(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	n := copy(p, l.left)
	l.left = l.left[n:]
	return n, nil
}

func (l *lzopReader) u32() (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(l.r, b[:])
	return binary.BigEndian.Uint32(b[:]), err
}

// block reads the next block.
func (l *lzopReader) block() error {
	size, err := l.u32()
	if err != nil || size == 0 {
		l.ended = err == nil
		return err
	}
	packed, err := l.u32()
	if err != nil {
		return err
	}
	if size > lzopMaxBlock || packed > size {
		return fmt.Errorf("a block has %d bytes, %d compressed", size, packed)
	}
	sums := map[uint32]uint32{}
	for _, flag := range []uint32{lzopAdler, lzopCRC, lzopAdlerIn, lzopCRCIn} {
		if l.flags&flag == 0 || packed == size && flag&(lzopAdlerIn|lzopCRCIn) != 0 {
			continue
		}
		if sums[flag], err = l.u32(); err != nil {
			return err
		}
	}
	if l.in, err = readBlock(l.r, l.in[:0], int(packed)); err != nil {
		return err
	}
	if packed == size {
		l.left = l.in
		return verify(sums, l.left, lzopAdler, lzopCRC)
	}
	if err := verify(sums, l.in, lzopAdlerIn, lzopCRCIn); err != nil {
		return err
	}
	if l.out, err = lzo1x(l.out[:0], l.in, int(size)); err != nil {
		return err
	}
	l.left = l.out
	return verify(sums, l.left, lzopAdler, lzopCRC)
}

// readBlock reads n bytes. Its memory grows with what really comes.
func readBlock(r io.Reader, b []byte, n int) ([]byte, error) {
	buf := bytes.NewBuffer(b)
	got, err := io.CopyN(buf, r, int64(n))
	if err == io.EOF && got < int64(n) {
		err = io.ErrUnexpectedEOF
	}
	return buf.Bytes(), err
}

// verify compares the checksums that a block has.
func verify(sums map[uint32]uint32, b []byte, adler, crc uint32) error {
	for flag, want := range sums {
		if flag != adler && flag != crc {
			continue
		}
		if checksum(flag == crc, b) != want {
			return errors.New("the checksum of a block is wrong")
		}
	}
	return nil
}
