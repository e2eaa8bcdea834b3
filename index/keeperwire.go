package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/thawfs/thaw/index/pack"
)

// The protocol between a store and the keeper of its index. Both sides send frames:
//
//	frame    = length(4, little-endian), kind(1), length-1 bytes of content
//
// The keeper greets with one frame. Then the store asks and the keeper answers, one after the other.
//
//	question                            content of the answer
//	keepOpen    the directory           nothing
//	keepPages   keys of pages, 6 bytes  their refs, 8 bytes each
//	keepGet     a key                   its row, or nothing
//	keepUpdate  rows                    nothing
//	keepScan    a kind, a key           rows of that kind behind the key; none at the end
//	keepClose   nothing                 nothing; the keeper ends
//
//	row = length of the key(1), the key, 1 + length of the value(1; 0: it is deleted), the value
//
// An answer is of kind keepDone, or keepFailed with a text. A frame that is too long or cut
// short ends the connection.
const (
	keepHello  = 'H'
	keepOpen   = 'o'
	keepPages  = 'p'
	keepGet    = 'g'
	keepUpdate = 'u'
	keepScan   = 's'
	keepClose  = 'c'
	keepDone   = 'd'
	keepFailed = 'f'
)

// keeperHello is what a keeper of this version greets with.
const keeperHello = "thaw-keeper 1"

// maxFrame bounds a frame: maxRows of the longest rows, and then some.
const maxFrame = maxRows*(2+2*maxRowKey) + 4096

var errFrame = errors.New("the keeper's protocol was violated")

// writeFrame sends one frame, in one write.
func writeFrame(w io.Writer, kind byte, content []byte) error {
	if len(content) >= maxFrame {
		return fmt.Errorf("%w: a frame of %d bytes", errFrame, len(content))
	}
	b := make([]byte, 0, 5+len(content))
	b = binary.LittleEndian.AppendUint32(b, uint32(1+len(content)))
	b = append(append(b, kind), content...)
	_, err := w.Write(b)
	return err
}

// readFrame receives one frame; io.EOF if there is none.
func readFrame(r io.Reader) (kind byte, content []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > maxFrame {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes", errFrame, n)
	}
	content = make([]byte, n-1)
	if _, err := io.ReadFull(r, content); err != nil {
		return 0, nil, fmt.Errorf("%w: a frame is cut short: %w", errFrame, err)
	}
	return head[4], content, nil
}

func appendRow(b []byte, r row) ([]byte, error) {
	if len(r.key) == 0 || len(r.key) > maxRowKey || len(r.value) > maxRowKey {
		return nil, fmt.Errorf("%w: a row of %d and %d bytes", errFrame, len(r.key), len(r.value))
	}
	b = append(append(b, byte(len(r.key))), r.key...)
	if r.value == nil {
		return append(b, 0), nil
	}
	return append(append(b, byte(1+len(r.value))), r.value...), nil
}

func appendRows(b []byte, rows []row) (_ []byte, err error) {
	if len(rows) > maxRows {
		return nil, fmt.Errorf("%w: %d rows", errFrame, len(rows))
	}
	for _, r := range rows {
		if b, err = appendRow(b, r); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func parseRows(b []byte) (rows []row, err error) {
	take := func(n int) (part []byte) {
		if n > maxRowKey || n > len(b) {
			err = fmt.Errorf("%w: a row is cut short", errFrame)
			return nil
		}
		part, b = b[:n:n], b[n:]
		return part
	}
	length := func() int {
		if part := take(1); part != nil {
			return int(part[0])
		}
		return 0
	}
	for len(b) > 0 && err == nil {
		var r row
		r.key = take(length())
		if n := length(); n > 0 && err == nil {
			r.value = take(n - 1)
		}
		if err == nil && (len(r.key) == 0 || len(rows) == maxRows) {
			err = fmt.Errorf("%w: bad rows", errFrame)
		}
		rows = append(rows, r)
	}
	if err != nil {
		return nil, err
	}
	return rows, nil
}

func appendPageKeys(b []byte, hashes []pack.Hash) []byte {
	for _, h := range hashes {
		b = append(b, h[:pageKeySize]...)
	}
	return b
}

func parsePageKeys(b []byte) ([]pack.Hash, error) {
	if len(b)%pageKeySize != 0 || len(b) > maxRows*pageKeySize {
		return nil, fmt.Errorf("%w: keys of %d bytes", errFrame, len(b))
	}
	hashes := make([]pack.Hash, len(b)/pageKeySize)
	for i := range hashes {
		copy(hashes[i][:], b[i*pageKeySize:][:pageKeySize])
	}
	return hashes, nil
}

func appendPageRefs(b []byte, refs []uint64) []byte {
	for _, r := range refs {
		b = binary.LittleEndian.AppendUint64(b, r)
	}
	return b
}

func parsePageRefs(b []byte, refs []uint64) error {
	if len(b) != 8*len(refs) {
		return fmt.Errorf("%w: %d bytes for %d refs", errFrame, len(b), len(refs))
	}
	for i := range refs {
		refs[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return nil
}
