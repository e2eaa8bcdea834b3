package pack

import (
	"testing"

	"github.com/thawfs/thaw/tests/blobtest"
)

// New packs have identities of their own, and a pack keeps its identity when it is rewritten.
func TestIdentity(t *testing.T) {
	s, dec := blobtest.NewMem(), mustDecoder(t)
	finish := func(w *Writer) {
		t.Helper()
		if _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	finish(mustWriter(t, s, 7, 0))
	finish(mustWriter(t, s, 8, 0))
	a, b := mustOpen(t, s, Name(7, 0), dec), mustOpen(t, s, Name(8, 0), dec)
	if a.ID() == 0 || b.ID() == 0 || a.ID() == b.ID() {
		t.Fatalf("identities %x and %x", a.ID(), b.ID())
	}
	enc, err := NewEncoder(ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	w := mustWriter(t, s, 7, 1)
	if err := Rewrite(t.Context(), a, w, enc, testKey, Keep{}); err != nil {
		t.Fatal(err)
	}
	finish(w)
	if got := mustOpen(t, s, Name(7, 1), dec).ID(); got != a.ID() {
		t.Errorf("identity %x became %x", a.ID(), got)
	}
}

// A footer of a program that knew no identities has zeros in their place.
func TestNoIdentity(t *testing.T) {
	f := footer{version: formatVersion, number: 1, size: headerSize + footerSize,
		dir: section{off: headerSize}, hashes: section{off: headerSize}}
	got, err := parseFooter(f.append(nil), headerSize+footerSize)
	if err != nil || got.id != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	f.id = 0x0123456789abcdef
	if got, err = parseFooter(f.append(nil), headerSize+footerSize); err != nil || got != f {
		t.Fatalf("%+v, %v", got, err)
	}
}
