package acpi

import (
	"encoding/binary"
	"fmt"
	"strings"
)

var le = binary.LittleEndian

// AML is a byte code: an opcode, its operands, and for what encloses other things a length in
// front of them. So it is written from the inside out.
//
// A term is a piece of it. Terms are made by the functions below, named after the ASL that they
// stand for, nested as in ASL, and become bytes by encode.
type term func(*encoder)

// encoder collects bytes; the first error stays.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) add(b ...byte) { e.b = append(e.b, b...) }

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

// encode makes bytes of terms.
func encode(terms ...term) ([]byte, error) {
	var e encoder
	for _, t := range terms {
		t(&e)
	}
	return e.b, e.err
}

// Opcodes (ACPI 6.5, table 20.2). Two bytes are one opcode after the extension prefix 0x5b.
const (
	opZero    = 0x00
	opOne     = 0x01
	opName    = 0x08
	opByte    = 0x0a
	opWord    = 0x0b
	opDWord   = 0x0c
	opString  = 0x0d
	opQWord   = 0x0e
	opScope   = 0x10
	opBuffer  = 0x11
	opPackage = 0x12
	opMethod  = 0x14
	opExt     = 0x5b
	opArg0    = 0x68
	opNotify  = 0x86
	opLEqual  = 0x93
	opIf      = 0xa0
	extDevice = 0x82
)

// maxPkgLength is the largest number that the length of four bytes holds.
const maxPkgLength = 1<<28 - 1

// pkgLength encodes the length of what follows it, itself included: one byte for less than 64, or
// in the first byte how many follow, and the length's low four bits.
func pkgLength(content int) ([]byte, error) {
	if content+1 < 1<<6 {
		return []byte{byte(content + 1)}, nil
	}
	for more := 1; more <= 3; more++ {
		n := content + 1 + more
		if n >= 1<<(4+8*more) {
			continue
		}
		b := []byte{byte(more<<6 | n&0xf)}
		for n >>= 4; len(b) <= more; n >>= 8 {
			b = append(b, byte(n))
		}
		return b, nil
	}
	return nil, fmt.Errorf("a package of %d bytes: at most %d have a length in AML", content,
		maxPkgLength-4)
}

// enclose writes an opcode, the length of the terms, and the terms.
func enclose(op []byte, terms ...term) term {
	return func(e *encoder) {
		content, err := encode(terms...)
		if err != nil {
			e.fail("%w", err)
			return
		}
		length, err := pkgLength(len(content))
		if err != nil {
			e.fail("%w", err)
			return
		}
		e.add(op...)
		e.add(length...)
		e.add(content...)
	}
}

// raw is bytes as they are.
func raw(b ...byte) term { return func(e *encoder) { e.add(b...) } }

// segment is a name of one to four characters, filled up with underscores. That is all the names
// there are here: a name is looked for in the scopes around it too.
func segment(s string) term {
	return func(e *encoder) {
		if !validName(s) {
			e.fail("name %q: 1 to 4 of A to Z, 0 to 9 and _, not beginning with a digit", s)
			return
		}
		e.add([]byte((s + "___")[:4])...)
	}
}

func validName(s string) bool {
	for i, c := range s {
		letter := c == '_' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 4
}

// integer is a number in the shortest of its encodings.
func integer(v uint64) term {
	switch {
	case v == 0:
		return raw(opZero)
	case v == 1:
		return raw(opOne)
	case v < 1<<8:
		return raw(opByte, byte(v))
	case v < 1<<16:
		return raw(le.AppendUint16([]byte{opWord}, uint16(v))...)
	case v < 1<<32:
		return raw(le.AppendUint32([]byte{opDWord}, uint32(v))...)
	}
	return raw(le.AppendUint64([]byte{opQWord}, v)...)
}

// text is a string: ASCII, closed by a 0.
func text(s string) term {
	return func(e *encoder) {
		for _, c := range []byte(s) {
			if c == 0 || c > 0x7f {
				e.fail("string %q: AML has ASCII without 0", s)
				return
			}
		}
		e.add(opString)
		e.add([]byte(s)...)
		e.add(0)
	}
}

// eisaID packs an id of three letters and four hexadecimal digits into a number, as _HID has it:
// five bits for each letter, then the digits, the high byte first.
func eisaID(id string) term {
	return func(e *encoder) {
		var product uint16
		ok := len(id) == 7
		for i := 0; ok && i < 3; i++ {
			ok = id[i] >= 'A' && id[i] <= 'Z'
		}
		for i := 3; ok && i < 7; i++ {
			digit := strings.IndexByte("0123456789ABCDEF", id[i])
			ok = digit >= 0
			product = product<<4 | uint16(digit)
		}
		if !ok {
			e.fail("EISA id %q: three letters and four hexadecimal digits", id)
			return
		}
		vendor := uint16(id[0]-'@')<<10 | uint16(id[1]-'@')<<5 | uint16(id[2]-'@')
		e.add(opDWord, byte(vendor>>8), byte(vendor), byte(product>>8), byte(product))
	}
}

// Terms that enclose others or take operands.

func name(n string, value term) term {
	return func(e *encoder) {
		e.add(opName)
		segment(n)(e)
		value(e)
	}
}

func scope(n string, body ...term) term {
	return enclose([]byte{opScope}, append([]term{segment(n)}, body...)...)
}

func device(n string, body ...term) term {
	return enclose([]byte{opExt, extDevice}, append([]term{segment(n)}, body...)...)
}

// method is a method that one thread at a time runs.
func method(n string, args int, body ...term) term {
	const serialized = 1 << 3
	if args < 0 || args > 7 {
		return func(e *encoder) { e.fail("method %s with %d arguments", n, args) }
	}
	head := []term{segment(n), raw(byte(args) | serialized)}
	return enclose([]byte{opMethod}, append(head, body...)...)
}

func pkg(elements ...term) term {
	if len(elements) > 255 {
		return func(e *encoder) { e.fail("package with %d elements", len(elements)) }
	}
	return enclose([]byte{opPackage}, append([]term{raw(byte(len(elements)))}, elements...)...)
}

func ifTrue(condition term, body ...term) term {
	return enclose([]byte{opIf}, append([]term{condition}, body...)...)
}

func equal(a, b term) term {
	return func(e *encoder) {
		e.add(opLEqual)
		a(e)
		b(e)
	}
}

func arg0() term { return raw(opArg0) }

func notify(object string, value uint64) term {
	return func(e *encoder) {
		e.add(opNotify)
		segment(object)(e)
		integer(value)(e)
	}
}
