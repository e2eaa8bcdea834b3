package cpio

import (
	"bytes"
	"strconv"
	"testing"
)

// read is an independent reader of the format: names to data, in order.
func read(t *testing.T, b []byte) (names []string, data map[string]string, modes map[string]uint64) {
	t.Helper()
	data, modes = map[string]string{}, map[string]uint64{}
	align := func(n int) int { return (n + 3) &^ 3 }
	for off := 0; ; {
		if len(b) < off+110 || string(b[off:off+6]) != "070701" {
			t.Fatalf("no header at %d", off)
		}
		field := func(i int) uint64 {
			v, err := strconv.ParseUint(string(b[off+6+8*i:off+14+8*i]), 16, 32)
			if err != nil {
				t.Fatalf("field %d at %d: %v", i, off, err)
			}
			return v
		}
		size, nameSize := int(field(6)), int(field(11))
		name := string(b[off+110 : off+110+nameSize-1])
		at := align(off + 110 + nameSize)
		if name == "TRAILER!!!" {
			return names, data, modes
		}
		names, data[name], modes[name] = append(names, name), string(b[at:at+size]), field(1)
		off = align(at + size)
	}
}

func TestWriter(t *testing.T) {
	var out bytes.Buffer
	c := New(&out)
	c.File("a/b/file", 0o644, []byte("hello"))
	c.Symlink("a/link", "b/file")
	c.CharDevice("dev/console", 5, 1)
	c.File("empty", 0o755, nil)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	names, data, modes := read(t, out.Bytes())
	want := []string{"a", "a/b", "a/b/file", "a/link", "dev", "dev/console", "empty"}
	if len(names) != len(want) {
		t.Fatalf("entries %q, want %q", names, want)
	}
	for i := range want {
		if names[i] != want[i] {
			t.Errorf("entry %d is %q, want %q", i, names[i], want[i])
		}
	}
	if data["a/b/file"] != "hello" || data["a/link"] != "b/file" || data["empty"] != "" {
		t.Errorf("data %q", data)
	}
	if modes["a"] != 0o040755 || modes["a/b/file"] != 0o100644 || modes["dev/console"] != 0o020600 {
		t.Errorf("modes %v", modes)
	}
}
