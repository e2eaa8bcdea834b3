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

// refRun gives the length of the run that refs begins with: zeros, or ascending by one in one pack.
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
			dst = binary.AppendUvarint(dst, head|opZero)
		case near != 0 && samePack(first, near-1):
			dst = binary.AppendUvarint(dst, head|opNear)
			dst = binary.AppendUvarint(dst, zigzag(int64(first-near)))
			near = first + uint64(n)
		case other != 0 && samePack(first, other-1):
			dst = binary.AppendUvarint(dst, head|opOther)
			dst = binary.AppendUvarint(dst, zigzag(int64(first-other)))
			near, other = first+uint64(n), near
		default:
			dst = binary.AppendUvarint(dst, head|opFar)
			dst = binary.AppendUvarint(dst, first)
			near, other = first+uint64(n), near
		}
		refs = refs[n:]
	}
	return dst
}

// decodeRefs fills refs from its code and gives what follows it.
func decodeRefs(code []byte, refs []uint64) (rest []byte, err error) {
	var near, other uint64
	for len(refs) > 0 {
		head, w := binary.Uvarint(code)
		n := head>>2 + 1
		if w <= 0 || n > uint64(len(refs)) {
			return nil, fmt.Errorf("%w: run of %d, %d left", errRefs, n, len(refs))
		}
		code = code[w:]
		op := head & 3
		if op == opZero {
			clear(refs[:n])
			refs = refs[n:]
			continue
		}
		arg, w := binary.Uvarint(code)
		if w <= 0 {
			return nil, fmt.Errorf("%w: cut short", errRefs)
		}
		code = code[w:]
		first := arg
		switch op {
		case opNear:
			first = near + uint64(unzigzag(arg))
		case opOther:
			first = other + uint64(unzigzag(arg))
			other = near
		case opFar:
			other = near
		}
		if first == 0 || first > maxRef || !samePack(first, first+n-1) {
			return nil, fmt.Errorf("%w: run of %d at %#x", errRefs, n, first)
		}
		for i := range n {
			refs[i] = first + i
		}
		near = first + n
		refs = refs[n:]
	}
	return code, nil
}
