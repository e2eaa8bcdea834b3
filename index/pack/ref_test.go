package pack

import (
	"encoding/json"
	"testing"
)

func TestRef(t *testing.T) {
	for _, c := range []struct {
		number uint64
		slot   uint32
	}{{1, 0}, {1, MaxSlots - 1}, {MaxNumber, MaxSlots - 1}, {12345, 678}} {
		r := MakeRef(c.number, c.slot)
		if r == ZeroRef || r.Pack() != c.number || r.Slot() != c.slot {
			t.Errorf("%+v: %v", c, r)
		}
	}
	if ZeroRef.String() != "zero" || MakeRef(3, 4).String() != "3/4" {
		t.Error("String")
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct {
		name       string
		number     uint64
		generation uint32
		ok         bool
	}{
		{"packs/0000000001.0.pack", 1, 0, true},
		{"packs/1099511627775.4294967295.pack", MaxNumber, 1<<32 - 1, true},
		{"packs/1099511627776.0.pack", 0, 0, false},
		{"packs/0000000000.0.pack", 0, 0, false},
		{"packs/1.0.pack", 0, 0, false},
		{"packs/0000000001.00.pack", 0, 0, false},
		{"packs/0000000001.0", 0, 0, false},
		{"packs/0000000001.pack", 0, 0, false},
		{"packs/+000000001.0.pack", 0, 0, false},
		{"0000000001.0.pack", 0, 0, false},
		{"", 0, 0, false},
	} {
		number, generation, ok := ParseName(c.name)
		if ok != c.ok || ok && (number != c.number || generation != c.generation) {
			t.Errorf("%q: %d, %d, %v", c.name, number, generation, ok)
		}
		if ok && Name(number, generation) != c.name {
			t.Errorf("%q is spelled %q", c.name, Name(number, generation))
		}
	}
}

func TestProfile(t *testing.T) {
	for _, p := range []Profile{ProfileDefault, ProfileFast} {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back Profile
		if err := json.Unmarshal(b, &back); err != nil || back != p {
			t.Errorf("%v -> %s -> %v, %v", p, b, back, err)
		}
	}
	if _, err := ParseProfile("none"); err == nil {
		t.Error("parsed")
	}
	if p, err := ParseProfile(""); err != nil || p != ProfileDefault {
		t.Error(p, err)
	}
	if _, err := NewEncoder(7); err == nil {
		t.Error("an encoder of no profile")
	}
}
