package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// codec says how the bytes of a unit, record or frame are stored. The numbers are part of the
// format.
type codec uint8

const (
	codecDead  codec = 0        // nothing is stored: the content was dropped by a compaction
	codecRaw   codec = 1        // as it is
	codecZstd  codec = 2        // one block of a zstd frame, without the frame header and block header
	codecS2    codec = 3        // an S2 block
	codecFrame codec = 4        // a whole zstd frame
	codecLZ4   codec = 5        // an LZ4 block
	codecMax         = codecLZ4 // of records and frames
	// codecClustered is of units whose pages lie in clusters. Nothing is stored in the block.
	codecClustered codec = 6
)

// maxUnitPages bounds a unit, so that its stored length fits the 16 bits that a slot has for it.
const maxUnitPages = 8

// valid says whether a unit may have this shape.
func (c codec) valid(pages int, length uint64) bool {
	if pages < 1 || pages > maxUnitPages || length > uint64(pages)*PageSize+crcSize {
		return false
	}
	switch c {
	case codecDead, codecClustered:
		return length == 0
	case codecRaw:
		return length == uint64(pages)*PageSize+crcSize
	case codecZstd, codecS2, codecLZ4:
		return length > crcSize
	default:
		return false
	}
}

// A unit stored with codecZstd is the body of the only block of a zstd frame. The bytes before
// it are known already, and are restored before decoding: magic, frame header
// (descriptor 0x60: single segment, two bytes of content size, no checksum, no dictionary; content
// size - 256), and the header of a last block.
const zstdPrefix = 4 + 1 + 2 + 3

const zstdMagic = 0xFD2FB528

// zstdBlockCompressed is the block type of zstd that has literals and sequences.
const zstdBlockCompressed = 2

// putZstdPrefix writes the ten bytes that make a zstd frame of a stored unit of length bytes that
// decodes to size bytes (256..65791).
func putZstdPrefix(b []byte, size, length int) {
	_ = b[zstdPrefix-1]
	binary.LittleEndian.PutUint32(b, zstdMagic)
	b[4] = 0x60
	binary.LittleEndian.PutUint16(b[5:], uint16(size-256))
	h := uint32(length)<<3 | zstdBlockCompressed<<1 | 1
	b[7], b[8], b[9] = byte(h), byte(h>>8), byte(h>>16)
}

// stripZstd returns the part of a zstd frame that codecZstd stores; ok is false for a frame that
// putZstdPrefix would not restore: of several blocks, or of one that is not compressed.
func stripZstd(frame []byte, size int) (body []byte, ok bool) {
	if len(frame) <= zstdPrefix {
		return nil, false
	}
	var want [zstdPrefix]byte
	body = frame[zstdPrefix:]
	putZstdPrefix(want[:], size, len(body))
	return body, bytes.Equal(want[:], frame[:zstdPrefix])
}

// slack is how far zstd may write behind the end, in bytes.
const slack = 16

var errDecodedSize = errors.New("decodes to a wrong size")

// decode fills dst from what is stored, which is frame without its first zstdPrefix
// bytes: they are room, and overwritten for codecZstd. dst is filled completely or an error is returned. Up
// to slack bytes behind dst may be overwritten, if it has the capacity: zstd decodes a fifth faster
// when it may.
func (d *Decoder) decode(c codec, dst, frame []byte) error {
	src := frame[zstdPrefix:]
	switch c {
	case codecRaw:
		if len(src) != len(dst) {
			return errDecodedSize
		}
		copy(dst, src)
		return nil
	case codecZstd, codecFrame:
		if c == codecFrame {
			return inflate(d.frames, dst, src)
		}
		putZstdPrefix(frame, len(dst), len(src))
		return inflate(d.units, dst, frame)
	case codecS2:
		n, err := s2.DecodedLen(src)
		if err != nil {
			return err
		}
		if n != len(dst) {
			return errDecodedSize
		}
		_, err = s2.Decode(dst, src)
		return err
	case codecLZ4:
		n, err := lz4.UncompressBlock(src, dst[:len(dst):len(dst)])
		if err == nil && n != len(dst) {
			err = errDecodedSize
		}
		return err
	}
	return fmt.Errorf("unknown codec %d", c)
}

// inflate fills dst from a whole zstd frame, as decode does.
func inflate(z *zstd.Decoder, dst, frame []byte) error {
	out, err := z.DecodeAll(frame, dst[:0:min(cap(dst), len(dst)+slack)])
	if err != nil {
		return err
	}
	if len(out) != len(dst) || len(dst) > 0 && &out[0] != &dst[0] {
		return errDecodedSize
	}
	return nil
}

// newZstdEncoder makes an encoder of frames as stripZstd likes them.
func newZstdEncoder(level zstd.EncoderLevel, window int, allLiterals bool) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window),
		zstd.WithAllLitEntropyCompression(allLiterals), zstd.WithZeroFrames(true),
		zstd.WithLowerEncoderMem(true))
}
