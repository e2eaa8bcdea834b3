package pack

import (
	"fmt"
	"strconv"
	"strings"
)

// PageSize is the size of a guest page, in bytes.
const PageSize = 4096

const (
	// MaxSlots bounds the pages of one pack: a slot number has 24 bits.
	MaxSlots = 1 << 24
	// MaxBytes bounds the size of one pack: offsets have 32 bits.
	MaxBytes = 1<<32 - 1
	// MaxNumber bounds pack numbers: they have 40 bits. The first pack is number 1.
	MaxNumber = 1<<40 - 1
)

// Ref says where a page is stored: pack number<<24 | slot. The zero Ref is the zero page, which is
// stored nowhere.
type Ref uint64

// ZeroRef is the Ref of the page of 4096 zero bytes.
const ZeroRef Ref = 0

// MakeRef makes a Ref. number is 1..MaxNumber, slot is below MaxSlots.
func MakeRef(number uint64, slot uint32) Ref { return Ref(number<<24 | uint64(slot)) }

// Pack is the number of the pack; 0 for the zero page.
func (r Ref) Pack() uint64 { return uint64(r) >> 24 }

// Slot is the ordinal of the page in its pack.
func (r Ref) Slot() uint32 { return uint32(r) & (MaxSlots - 1) }

func (r Ref) String() string {
	if r == ZeroRef {
		return "zero"
	}
	return fmt.Sprintf("%d/%d", r.Pack(), r.Slot())
}

// Prefix is what the names of all packs begin with.
const Prefix = "packs/"

// Name is the blob name of a generation of a pack.
func Name(number uint64, generation uint32) string {
	return fmt.Sprintf("%s%010d.%d.pack", Prefix, number, generation)
}

// ParseName is the inverse of Name; ok is false for what is not the name of a pack.
func ParseName(name string) (number uint64, generation uint32, ok bool) {
	num, rest, _ := strings.Cut(strings.TrimPrefix(name, Prefix), ".")
	gen, _ := strings.CutSuffix(rest, ".pack")
	n, err := strconv.ParseUint(num, 10, 64)
	if err != nil || n == 0 || n > MaxNumber {
		return 0, 0, false
	}
	g, err := strconv.ParseUint(gen, 10, 32)
	if err != nil {
		return 0, 0, false
	}
	// One spelling only: no signs, no other padding, no missing prefix.
	return n, uint32(g), Name(n, uint32(g)) == name
}
