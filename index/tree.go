package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/thawfs/thaw/index/pack"
)

// Kinds of the records in packs and roots. The numbers are part of the format.
const (
	kindLeaf       = 1 // code of a leaf
	kindBranch     = 2 // code of a branch
	kindFile       = 3 // part of a file
	kindManifest   = 4 // JSON of a root
	kindMap        = 5 // top of the page map, in a root
	kindWorkingSet = 6 // runs of the working set, in a root
	kindDues       = 7 // when they are wanted, in a root
)

const (
	// branchLeaves is the number of leaves that a branch has: 1 GiB of guest memory.
	branchLeaves = 512
	branchPages  = branchLeaves * LeafPages
	// maxInline is the size of the longest leaf code that stands in its branch, in bytes. As a record
	// of its own it would cost about a dozen bytes more, and a read.
	maxInline = 32
	// maxPages bounds an image (16 TiB), so that a gfn fits 32 bits in RAM.
	maxPages = 1 << 32
)

// Forms of a leaf's code: its first byte.
const (
	leafFull  = 0 // then the code of its 512 refs
	leafDelta = 1 // then a base as varint node ref, then the code of the 512 differences from it
)

// refNowZero stands in a difference for a page that became zero; 0 stands there for one that stayed
// as it is. It is no page's ref: pack numbers begin with 1.
const refNowZero = 1

// filePartSize is the size of the parts that files are stored in, in bytes.
const filePartSize = 256 << 10

var errNode = errors.New("page map node is malformed")

// leaf is the refs of 512 pages.
type leaf = [LeafPages]uint64

func appendFullLeaf(dst []byte, refs *leaf) []byte {
	return appendRefs(append(dst, leafFull), refs[:])
}

// appendDeltaLeaf codes refs by what differs from the full leaf that node base holds.
func appendDeltaLeaf(dst []byte, base uint64, from, refs *leaf) []byte {
	var diff leaf
	for i, r := range refs {
		switch {
		case r == from[i]:
		case r == 0:
			diff[i] = refNowZero
		default:
			diff[i] = r
		}
	}
	dst = binary.AppendUvarint(append(dst, leafDelta), base)
	return appendRefs(dst, diff[:])
}

// nodes reads the nodes of page maps. ref is pack<<24 | record, like that of a page.
type nodes interface {
	node(ref uint64, kind uint32) ([]byte, error)
}

// decodeLeaf fills refs from a leaf's code and returns the base of a delta (0 for a full leaf).
func decodeLeaf(n nodes, code []byte, refs *leaf) (base uint64, err error) {
	if len(code) == 0 {
		return 0, errNode
	}
	form, body := code[0], code[1:]
	switch form {
	case leafFull:
	case leafDelta:
		var w int
		if base, w = binary.Uvarint(body); w <= 0 || base == 0 {
			return 0, errNode
		}
		body = body[w:]
	default:
		return 0, fmt.Errorf("%w: leaf of form %d", errNode, form)
	}
	rest, err := decodeRefs(body, refs[:])
	if err != nil {
		return 0, err
	}
	if len(rest) != 0 {
		return 0, fmt.Errorf("%w: %d bytes too many", errNode, len(rest))
	}
	if form == leafDelta {
		err = applyDelta(n, base, refs)
	}
	for _, r := range refs {
		if err == nil && r != 0 && r < 1<<24 {
			err = fmt.Errorf("%w: page ref %#x", errNode, r)
		}
	}
	return base, err
}

// applyDelta turns the differences in refs into the refs themselves.
func applyDelta(n nodes, base uint64, refs *leaf) error {
	code, err := n.node(base, kindLeaf)
	if err != nil {
		return err
	}
	// A base is always full: so a leaf is never more than two reads away.
	if len(code) == 0 || code[0] != leafFull {
		return fmt.Errorf("%w: base %v is not a full leaf", errNode, pack.Ref(base))
	}
	var from leaf
	if _, err := decodeLeaf(n, code, &from); err != nil {
		return err
	}
	for i, r := range refs {
		switch r {
		case 0:
			refs[i] = from[i]
		case refNowZero:
			refs[i] = 0
		}
	}
	return nil
}

// child is where a branch finds a leaf: the code itself, or the record that has it. The zero child
// is a leaf of zero pages.
type child struct {
	ref    uint64
	inline []byte
}

func (c child) zero() bool { return c.ref == 0 && c.inline == nil }

// branch is the children of 1 GiB of guest memory.
type branch [branchLeaves]child

// append codes a branch: a list of refs, in which the i-th leaf that stands inline has ref 1+i,
// then the inline leaves, each after its length.
func (b *branch) append(dst []byte) []byte {
	var refs [branchLeaves]uint64
	inline := uint64(0)
	for i, c := range b {
		refs[i] = c.ref
		if c.inline != nil {
			inline++
			refs[i] = inline
		}
	}
	dst = appendRefs(dst, refs[:])
	for _, c := range b {
		if c.inline != nil {
			dst = binary.AppendUvarint(dst, uint64(len(c.inline)))
			dst = append(dst, c.inline...)
		}
	}
	return dst
}

// parse is the inverse of append. The inline leaves stay in code.
func (b *branch) parse(code []byte) error {
	var refs [branchLeaves]uint64
	code, err := decodeRefs(code, refs[:])
	if err != nil {
		return err
	}
	inline := uint64(0)
	for i, r := range refs {
		b[i] = child{ref: r}
		if r == 0 || r >= 1<<24 {
			continue
		}
		inline++
		n, w := binary.Uvarint(code)
		if r != inline || w <= 0 || n == 0 || n > uint64(len(code)-w) {
			return fmt.Errorf("%w: inline leaf %d", errNode, inline)
		}
		b[i] = child{inline: code[w : w+int(n) : w+int(n)]}
		code = code[w+int(n):]
	}
	if len(code) != 0 {
		return fmt.Errorf("%w: %d bytes too many", errNode, len(code))
	}
	return nil
}

// code returns a child's leaf code; nil for the zero child.
func (c child) code(n nodes) ([]byte, error) {
	if c.ref == 0 {
		return c.inline, nil
	}
	return n.node(c.ref, kindLeaf)
}

// readBranch reads and parses the branch at ref; a ref of 0 is a branch of zero leaves.
func readBranch(n nodes, ref uint64, b *branch) error {
	if ref == 0 {
		*b = branch{}
		return nil
	}
	code, err := n.node(ref, kindBranch)
	if err != nil {
		return err
	}
	if err := b.parse(code); err != nil {
		return &CorruptError{Pack: pack.Ref(ref).String(), What: "branch", Err: err}
	}
	return nil
}

// readLeaf reads the leaf of a child.
func readLeaf(n nodes, c child, refs *leaf) (base uint64, err error) {
	if c.zero() {
		clear(refs[:])
		return 0, nil
	}
	code, err := c.code(n)
	if err != nil {
		return 0, err
	}
	base, err = decodeLeaf(n, code, refs)
	if errors.Is(err, errNode) || errors.Is(err, errRefs) {
		err = &CorruptError{Pack: pack.Ref(c.ref).String(), What: "leaf", Err: err}
	}
	return base, err
}

// branchesOf is how many branches a map of so many pages has.
func branchesOf(pages uint64) uint64 { return (pages + branchPages - 1) / branchPages }
