package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/thawfs/thaw/index/pack"
)

// A list of refs (of pages in a leaf, of nodes in a branch) is stored as runs. Each run begins with
// the varint (count-1)<<2 | op:
//
//	opZero    count zero refs
//	opNear    count refs, each one more than the one before, the first of them at the expected ref
//	          plus the zigzag varint that follows
//	opOther   the same, but from the second expectation, which becomes the first
//	opFar     the same, but the varint that follows is the first ref itself; the first expectation
//	          becomes the second
//
// Two expectations, each the ref after the last one of a run, follow the two packs that a page map
// typically weaves together: what an older checkpoint stored and what this one changed. Equal
// lists have equal codes, so that hashing the code finds equal leaves.
const (
	opZero = iota
	opNear
	opOther
	opFar
)

// maxRef is the highest ref there is.
const maxRef = uint64(pack.MaxNumber)<<24 | (pack.MaxSlots - 1)

var errRefs = errors.New("list of refs is malformed")

func zigzag(d int64) uint64   { return uint64(d<<1) ^ uint64(d>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

func samePack(a, b uint64) bool { return a>>24 == b>>24 }

// refRun returns the length of the run that refs begins with: zeros, or ascending by one in one pack.
func refRun(refs []uint64) int {
	n := 1
	if refs[0] == 0 {
		for n < len(refs) && refs[n] == 0 {
			n++
		}
		return n
	}
	for n < len(refs) && refs[n] == refs[0]+uint64(n) && samePack(refs[n], refs[0]) {
		n++
	}
	return n
}

// appendRefs appends the code of refs to dst.
func appendRefs(dst []byte, refs []uint64) []byte {
	var near, other uint64 // the expectations; 0: none yet
	for len(refs) > 0 {
		n := refRun(refs)
		first := refs[0]
		head := uint64(n-1) << 2
		switch {
		case first == 0:
			dst = binary.AppendUvarint(dst, head+opZero)
		case near != 0 && samePack(first, near-1):
			dst = binary.AppendUvarint(dst, head+opNear)
			dst = binary.AppendUvarint(dst, zigzag(int64(first-near)))
			near = first + uint64(n)
		case other != 0 && samePack(first, other-1):
			dst = binary.AppendUvarint(dst, head+opOther)
			dst = binary.AppendUvarint(dst, zigzag(int64(first-other)))
			near, other = first+uint64(n), near
		default:
			dst = binary.AppendUvarint(dst, head+opFar)
			dst = binary.AppendUvarint(dst, first)
			near, other = first+uint64(n), near
		}
		refs = refs[n:]
	}
	return dst
}

// refScanner takes the code of a list of refs apart, run by run.
type refScanner struct {
	code        []byte
	left        int // refs that are still to come
	near, other uint64
}

// next returns the next run: n refs, ascending from first, or n zeros if first is 0. It is not called
// when nothing is left.
func (s *refScanner) next() (n int, first uint64, err error) {
	head, w := binary.Uvarint(s.code)
	count := head>>2 + 1
	if w <= 0 || count > uint64(s.left) {
		return 0, 0, fmt.Errorf("%w: run of %d, %d left", errRefs, count, s.left)
	}
	s.code = s.code[w:]
	s.left -= int(count)
	if head&3 == opZero {
		return int(count), 0, nil
	}
	arg, w := binary.Uvarint(s.code)
	if w <= 0 {
		return 0, 0, fmt.Errorf("%w: cut short", errRefs)
	}
	s.code = s.code[w:]
	switch head & 3 {
	case opNear:
		first = s.near + uint64(unzigzag(arg))
	case opOther:
		first = s.other + uint64(unzigzag(arg))
		s.other = s.near
	case opFar:
		first = arg
		s.other = s.near
	}
	if first == 0 || first > maxRef || !samePack(first, first+count-1) {
		return 0, 0, fmt.Errorf("%w: run of %d at %#x", errRefs, count, first)
	}
	s.near = first + count
	return int(count), first, nil
}

// decodeRefs fills refs from its code and returns what follows it.
func decodeRefs(code []byte, refs []uint64) (rest []byte, err error) {
	s := refScanner{code: code, left: len(refs)}
	for s.left > 0 {
		n, first, err := s.next()
		if err != nil {
			return nil, err
		}
		if first == 0 {
			clear(refs[:n])
		} else {
			for i := range n {
				refs[i] = first + uint64(i)
			}
		}
		refs = refs[n:]
	}
	return s.code, nil
}
