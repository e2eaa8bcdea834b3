package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	k := fixedKey(7)
	for _, b := range [][]byte{k.Text(), bytes.TrimSpace(k.Text()), k.secret[:],
		[]byte("  " + strings.ToUpper(string(k.Text())) + "\n\n")} {
		if got, err := ParseKey(b); got != k || err != nil {
			t.Errorf("%q: %v", b, err)
		}
	}
	for _, s := range []string{"", "\n", "abcd", strings.Repeat("0", 63), strings.Repeat("0", 66),
		strings.Repeat("g", 64), strings.Repeat("x", 31), strings.Repeat("x", 33)} {
		_, err := ParseKey([]byte(s))
		if !errors.Is(err, ErrKeyForm) || len(s) > 4 && strings.Contains(err.Error(), s) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// However a key is printed, it does not show.
func TestKeyDoesNotPrint(t *testing.T) {
	k := fixedKey(0xa7)
	secret := strings.TrimSpace(string(k.Text()))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q", "%o"} {
		for _, v := range []any{k, &k, []Key{k}, struct{ K Key }{k}} {
			s := fmt.Sprintf(verb, v)
			if strings.Contains(strings.ToLower(s), secret) || strings.Contains(s, "167 0 0") {
				t.Errorf("%s of %T: %s", verb, v, s)
			}
		}
	}
	if b, err := json.Marshal(map[string]any{"key": k}); string(b) != `{"key":{}}` || err != nil {
		t.Errorf("%s, %v", b, err)
	}
}

// Keys come and go; the store stays the same.
func TestHeader(t *testing.T) {
	a, b, c := fixedKey(1), fixedKey(2), fixedKey(3)
	h, v := New(a)
	opens := func(h Header, k Key, want error) {
		t.Helper()
		// As it is kept.
		text, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var back Header
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		got, err := back.Open(k)
		if !errors.Is(err, want) || err == nil && got.HashKey() != v.HashKey() {
			t.Errorf("%v, want %v", err, want)
		}
		for _, secret := range [][]byte{k.secret[:8], v.blobs, v.index} {
			if bytes.Contains(text, secret) || bytes.Contains(text, fmt.Appendf(nil, "%x", secret)) {
				t.Error("a secret shows")
			}
		}
	}
	opens(h, a, nil)
	opens(h, b, ErrWrongKey)
	two, err := h.Add(a, b)
	if err != nil {
		t.Fatal(err)
	}
	opens(two, a, nil)
	opens(two, b, nil)
	opens(h, b, ErrWrongKey) // it did not change
	if _, err := h.Add(c, c); !errors.Is(err, ErrWrongKey) {
		t.Error(err)
	}
	one, err := two.Remove(a.ID())
	if err != nil {
		t.Fatal(err)
	}
	opens(one, a, ErrWrongKey)
	opens(one, b, nil)
	opens(two, a, nil)
	if _, err := one.Remove(b.ID()); !errors.Is(err, ErrLastKey) {
		t.Error(err)
	}
	if _, err := one.Remove(a.ID()); !errors.Is(err, ErrWrongKey) {
		t.Error(err)
	}
	same, err := one.Add(b, b)
	if err != nil || len(same.Keys) != 1 {
		t.Errorf("%d keys, %v", len(same.Keys), err)
	}
	opens(same, b, nil)
}

// Whatever is changed of a slot, no other data key comes out.
func TestHeaderDamage(t *testing.T) {
	k := fixedKey(1)
	h, _ := New(k)
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	for at := range text {
		for bit := range 8 {
			bad := bytes.Clone(text)
			bad[at] ^= 1 << bit
			openHeader(t, bad, k, h)
		}
	}
}

// openHeader opens a Header as it is stored, which may be any bytes: the right data key, or an error.
func openHeader(t *testing.T, text []byte, k Key, want Header) {
	t.Helper()
	var h Header
	if json.Unmarshal(text, &h) != nil {
		return
	}
	v, err := h.Open(k)
	right, _ := want.Open(k)
	if err == nil && v.HashKey() != right.HashKey() {
		t.Fatalf("another data key: %s", text)
	}
	if err != nil && !errors.Is(err, ErrHeader) && !errors.Is(err, ErrWrongKey) {
		t.Fatal(err)
	}
}

func FuzzHeader(f *testing.F) {
	k := fixedKey(1)
	h, _ := New(k)
	text, err := json.Marshal(h)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"cipher":"aes-256-gcm","keys":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) { openHeader(t, b, k, h) })
}

// Names come back, are like no others, and are short enough for a file.
func TestNames(t *testing.T) {
	n := testVault(1).names
	seen := map[string]bool{}
	for length := 1; length <= 160; length++ {
		name := strings.Repeat("n", length)
		sealed := n.seal(name)
		if got, ok := n.open(sealed); got != name || !ok {
			t.Errorf("%d bytes: %q, %v", length, got, ok)
		}
		if length <= 128+len(".4294967295.ckpt") && len(sealed) > 240 {
			t.Errorf("%d bytes become %d", length, len(sealed))
		}
		if seen[sealed] || n.seal(name) != sealed {
			t.Errorf("%d bytes: the same as of others, or not the same again", length)
		}
		seen[sealed] = true
		for i := range sealed {
			bad := []byte(sealed)
			bad[i] ^= 1
			if got, ok := n.open(string(bad)); ok {
				t.Fatalf("%q is a name: %q", bad, got)
			}
		}
	}
	for _, s := range []string{"", "x", "web.0.ckpt", strings.Repeat("A", 64)} {
		if got, ok := n.open(s); ok {
			t.Errorf("%q is a name: %q", s, got)
		}
	}
}

func FuzzNames(f *testing.F) {
	n := testVault(1).names
	f.Add("web.0.ckpt")
	f.Fuzz(func(t *testing.T, name string) {
		if got, ok := n.open(name); ok {
			t.Errorf("%q was not sealed, and is %q", name, got)
		}
		// Names of blobs have no zero bytes at their ends.
		if got, ok := n.open(n.seal(name)); strings.TrimRight(name, "\x00") == name && (got != name || !ok) {
			t.Errorf("%q becomes %q, %v", name, got, ok)
		}
	})
}
