package guestmem

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMagics: what begins with a known magic is never taken for memory, not as a file, not in a directory,
// not on the standard input; what begins with anything else is.
func TestMagics(t *testing.T) {
	for _, m := range magics() {
		data := make([]byte, 3*PageSize)
		copy(data[m.at:], m.bytes)
		if m.kind == elfFile {
			copy(data[4:], []byte{2, 1, 1})
		}
		if m.kind == bzip2File {
			copy(data[3:], "91AY&SY")
		}
		path := writeFile(t, "memory", data)
		s, err := Open(t.Context(), path, Options{})
		if s != nil && s.Stream != nil {
			_, _, err = streamed(s.Stream)
		}
		if e, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(e.Error(), path) {
			t.Errorf("%q is taken for memory: %+v, %v", m.bytes, s, err)
		}
		if m.kind == refused && (m.do == "" || strings.Contains(m.refuse("x", "x").Do, "FILE")) {
			t.Errorf("%q: nothing helps: %q", m.bytes, m.do)
		}
		if _, err := Open(t.Context(), filepath.Dir(path), Options{}); m.kind != firecrackerState {
			if _, ok := errors.AsType[*FormatError](err); !ok {
				t.Errorf("%q is taken for memory in a directory: %v", m.bytes, err)
			}
		}
		// A directory that a VMM of thaw wrote is believed: page 0 is the guest's.
		writeAt(t, filepath.Join(filepath.Dir(path), "info.json"), []byte("{}"))
		if s, err := Open(t.Context(), filepath.Dir(path), Options{}); s != nil || err != nil {
			t.Errorf("%q in a directory with info.json: %+v, %v", m.bytes, s, err)
		}
	}
	for name, head := range map[string]string{"zeros": "", "almost": "\x7fELFx", "BZh": "BZh9 not"} {
		data := make([]byte, 2*PageSize)
		copy(data, head)
		if s, err := Open(t.Context(), writeFile(t, "memory", data), Options{}); s != nil || err != nil {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		in, err := OpenStream("stream", strings.NewReader(string(data)), false)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := streamed(in.Stream)
		sameImage(t, name, got, err, data)
	}
}

// TestRawStream: what the user calls raw is never looked at.
func TestRawStream(t *testing.T) {
	data := make([]byte, 5<<20)
	copy(data, "\x7fELF\x02\x01\x01")
	data[3<<20] = 7
	s, err := OpenStream("stream", strings.NewReader(string(data)), true)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := streamed(s.Stream)
	sameImage(t, "raw", got, err, data)
	s, _ = OpenStream("stream", strings.NewReader(string(data[:PageSize+1])), true)
	_, _, err = streamed(s.Stream)
	refusal(t, "odd", err, "4096")
}

// TestChangedFile: a file that is written to while it is read is an error.
func TestChangedFile(t *testing.T) {
	path := writeFile(t, "core", writeCore(small(1), coreOptions{}))
	s := mustOpen(t, path, Options{})
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	if _, err := contents(s.Memory); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("%v", err)
	}
}
