package acpi

import (
	"encoding/binary"
	"slices"
	"strconv"
)

var le = binary.LittleEndian

// AML is a byte code: an opcode and its operands, and a length before the contents of a term that
// encloses others. So the inner terms are encoded first.
//
// A term is a part of the byte code. The functions below make terms. They are named after their ASL
// operators and nested as in ASL; each writes its opcode (ACPI 6.5, table 20.2; an opcode of two bytes
// begins with the extension prefix 0x5b). All names and numbers come from this package.
type term = []byte

// pkgLength encodes the length of the contents and of itself: in one byte if it is less than 64;
// otherwise the first byte has the number of further bytes and the length's low four bits.
func pkgLength(content int) []byte {
	if content+1 < 1<<6 {
		return []byte{byte(content + 1)}
	}
	more := 1
	for content+1+more >= 1<<(4+8*more) {
		more++
	}
	n := content + 1 + more
	b := []byte{byte(more<<6 | n&0xf)}
	for n >>= 4; len(b) <= more; n >>= 8 {
		b = append(b, byte(n))
	}
	return b
}

// enclose writes an opcode, the length of the terms, and the terms.
func enclose(op term, terms ...term) term {
	content := slices.Concat(terms...)
	return slices.Concat(op, pkgLength(len(content)), content)
}

// segment is a name of one to four characters, padded with underscores. No longer names are needed,
// because the guest searches for a name in the enclosing scopes, too.
func segment(s string) term { return term((s + "___")[:4]) }

// integer is a number in its shortest encoding.
func integer(v uint64) term {
	switch {
	case v == 0:
		return term{0x00}
	case v == 1:
		return term{0x01}
	case v < 1<<8:
		return term{0x0a, byte(v)}
	case v < 1<<16:
		return le.AppendUint16(term{0x0b}, uint16(v))
	case v < 1<<32:
		return le.AppendUint32(term{0x0c}, uint32(v))
	}
	return le.AppendUint64(term{0x0e}, v)
}

// text is a string: ASCII, terminated by a 0.
func text(s string) term { return append(append(term{0x0d}, s...), 0) }

// eisaID encodes an ID of three letters and four hexadecimal digits as the number that _HID needs: five
// bits for each letter, then the digits, the high byte first.
func eisaID(id string) term {
	vendor := uint32(id[0]-'@')<<10 | uint32(id[1]-'@')<<5 | uint32(id[2]-'@')
	product, err := strconv.ParseUint(id[3:], 16, 16)
	if err != nil {
		panic("acpi: " + err.Error()) // a mistake in this package
	}
	return binary.BigEndian.AppendUint32(term{0x0c}, vendor<<16|uint32(product))
}

// Terms that enclose other terms or have operands.

func name(n string, value term) term { return slices.Concat(term{0x08}, segment(n), value) }

func scope(n string, body ...term) term {
	return enclose(term{0x10}, slices.Insert(body, 0, segment(n))...)
}

func device(n string, body ...term) term {
	return enclose(term{0x5b, 0x82}, slices.Insert(body, 0, segment(n))...)
}

// method is a method that one thread at a time runs.
func method(n string, args byte, body ...term) term {
	const serialized = 1 << 3
	return enclose(term{0x14}, slices.Insert(body, 0, segment(n), term{args | serialized})...)
}

func pkg(elements ...term) term {
	return enclose(term{0x12}, slices.Insert(elements, 0, term{byte(len(elements))})...)
}

func ifTrue(condition, body term) term { return enclose(term{0xa0}, condition, body) }

func equal(a, b term) term { return slices.Concat(term{0x93}, a, b) }

func arg0() term { return term{0x68} }

func notify(object string, value uint64) term {
	return slices.Concat(term{0x86}, segment(object), integer(value))
}
