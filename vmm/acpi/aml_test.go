package acpi

import (
	"bytes"
	"testing"
)

// decodeLength reads a package length: its value, and how many bytes it has.
func decodeLength(b []byte) (value, bytes int) {
	more := int(b[0] >> 6)
	if more == 0 {
		return int(b[0] & 0x3f), 1
	}
	value = int(b[0] & 0xf)
	for i := range more {
		value |= int(b[1+i]) << (4 + 8*i)
	}
	return value, 1 + more
}

func TestPkgLength(t *testing.T) {
	for _, c := range []struct{ content, bytes int }{
		{0, 1}, {1, 1}, {62, 1}, {63, 2}, {4093, 2}, {4094, 3}, {1<<20 - 4, 3}, {1<<20 - 3, 4},
		{1<<28 - 5, 4},
	} {
		b := pkgLength(c.content)
		value, n := decodeLength(b)
		if n != len(b) || n != c.bytes || value != c.content+c.bytes {
			t.Errorf("%d: % x is %d in %d bytes, want %d in %d", c.content, b, value, n,
				c.content+c.bytes, c.bytes)
		}
		if len(b) > 1 && b[0]&0x30 != 0 {
			t.Errorf("%d: reserved bits in % x", c.content, b)
		}
	}
}

// TestTerms compares with what iasl makes of the ASL beside it.
func TestTerms(t *testing.T) {
	for _, c := range []struct {
		asl  string
		term term
		want []byte
	}{
		{`Name (A, 0)`, name("A", integer(0)), []byte("\x08A___\x00")},
		{`Name (AB1, 1)`, name("AB1", integer(1)), []byte("\x08AB1_\x01")},
		{`255`, integer(255), []byte{0x0a, 0xff}},
		{`0x1234`, integer(0x1234), []byte{0x0b, 0x34, 0x12}},
		{`0x12345678`, integer(0x1234_5678), []byte{0x0c, 0x78, 0x56, 0x34, 0x12}},
		{`1 << 40`, integer(1 << 40), []byte{0x0e, 0, 0, 0, 0, 0, 1, 0, 0}},
		{`"xy"`, text("xy"), []byte("\x0dxy\x00")},
		{`EisaId ("PNP0501")`, eisaID("PNP0501"), []byte{0x0c, 0x41, 0xd0, 0x05, 0x01}},
		{`Package () {1, 2}`, pkg(integer(1), integer(2)), []byte{0x12, 5, 2, 1, 0x0a, 2}},
		{`Scope (_SB) {}`, scope("_SB"), []byte("\x10\x05_SB_")},
		{`Device (D) {Name (A, 0)}`, device("D", name("A", integer(0))),
			[]byte("\x5b\x82\x0bD___\x08A___\x00")},
		{`Method (M, 1, Serialized) {If (Arg0 == 9) {Notify (D, 0x80)}}`,
			method("M", 1, ifTrue(equal(arg0(), integer(9)), notify("D", 0x80))),
			[]byte("\x14\x13M___\x09\xa0\x0c\x93\x68\x0a\x09\x86D___\x0a\x80")},
		{`ResourceTemplate () {}`, resources(), []byte{0x11, 5, 0x0a, 2, 0x79, 0}},
	} {
		if !bytes.Equal(c.term, c.want) {
			t.Errorf("%s: % x, want % x", c.asl, c.term, c.want)
		}
	}
}

func TestResources(t *testing.T) {
	for _, c := range []struct {
		asl       string
		got, want []byte
	}{
		{"IO (Decode16, 0x3F8, 0x3F8, 1, 8)", ports(0x3f8, 8), []byte{0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8}},
		{"Memory32Fixed (ReadWrite, 0xD0000000, 0x1000)", memory32(0xd000_0000, 0x1000),
			[]byte{0x86, 9, 0, 1, 0, 0, 0, 0xd0, 0, 0x10, 0, 0}},
		{"Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {4}", edge(4),
			[]byte{0x89, 6, 0, 3, 1, 4, 0, 0, 0}},
		{"Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) {5}", level(5),
			[]byte{0x89, 6, 0, 1, 1, 5, 0, 0, 0}},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: % x, want % x", c.asl, c.got, c.want)
		}
	}
}
