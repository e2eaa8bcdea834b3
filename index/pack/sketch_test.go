package pack

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// A page is like its former content wherever that has moved in it, and where each of its records has a field
// that changed; not like another page, nor because both are mostly zeros.
func TestAlike(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	noise := func() []byte {
		p := make([]byte, PageSize)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		return p
	}
	page := noise()
	moved := append(append([]byte(nil), page[72:]...), noise()[:72]...)
	fields := append([]byte(nil), page...)
	for i := 0; i < PageSize; i += 8 {
		binary.LittleEndian.PutUint32(fields[i:], r.Uint32())
	}
	one, two := make([]byte, PageSize), make([]byte, PageSize)
	copy(one, noise()[:64])
	copy(two[1000:], noise()[:64])
	for what, c := range map[string]struct {
		a, b []byte
		want bool
	}{
		"itself": {page, page, true}, "moved": {page, moved, true}, "fields": {page, fields, true},
		"another": {page, noise(), false}, "zeros": {one, two, false},
	} {
		if Alike(c.a, c.b) != c.want {
			t.Errorf("%s: %v", what, !c.want)
		}
	}
}
