package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// errLedger: what is read is no ledger, or one that could not be written.
var errLedger = errors.New("it is empty or damaged")

// sealed is what stands before a text: its length and its checksum.
const sealed = 8

// seal makes bytes of a text that show whether all of it is there.
func seal(text []byte, room int) ([]byte, error) {
	if sealed+len(text) > room {
		return nil, fmt.Errorf("%d bytes have no room in %d", len(text), room)
	}
	b := make([]byte, room)
	binary.LittleEndian.PutUint32(b, uint32(len(text)))
	binary.LittleEndian.PutUint32(b[4:], crc32.ChecksumIEEE(text))
	copy(b[sealed:], text)
	return b, nil
}

// unseal returns the text; false if it is damaged. Zeros are an empty text.
func unseal(b []byte) (text []byte, ok bool) {
	n := binary.LittleEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-sealed) {
		return nil, false
	}
	text = b[sealed : sealed+n]
	return text, crc32.ChecksumIEEE(text) == binary.LittleEndian.Uint32(b[4:])
}

// eachData reads what a sparse file has between two offsets, into buf, a part at a time. What was never
// written is left out, but for the rest of its page. Parts begin where a multiple of 512 after from does.
func eachData(f *os.File, from, end int64, buf []byte, fn func(at int64, b []byte)) error {
	for at := from; at < end; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= end {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		at = max(at, data&^511)
		n, err := f.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
		if n == 0 && err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return nil
		}
		fn(at, buf[:n])
		at += int64(n+511) &^ 511
	}
	return nil
}

// places are numbers that are given out and taken back, the smaller ones first where none came back.
type places struct {
	next uint32
	free []uint32
}

func (p *places) take() uint32 {
	if n := len(p.free); n > 0 {
		at := p.free[n-1]
		p.free = p.free[:n-1]
		return at
	}
	p.next++
	return p.next - 1
}

func (p *places) give(at uint32) { p.free = append(p.free, at) }

// use takes a number that is known to be in use. They come in ascending order.
func (p *places) use(at uint32) {
	for ; p.next < at; p.next++ {
		p.free = append(p.free, p.next)
	}
	p.next = at + 1
}
