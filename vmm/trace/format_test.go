package trace

import (
	"errors"
	"strings"
	"testing"
)

const sample = `name: kvm_mmu_spte_requested
ID: 118
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:u64 gfn;	offset:8;	size:8;	signed:0;
	field:u64 pfn;	offset:16;	size:8;	signed:0;
	field:u8 level;	offset:24;	size:1;	signed:0;

print fmt: "gfn %llx pfn %llx level %d", REC->gfn, REC->pfn, REC->level
`

func TestParseFormat(t *testing.T) {
	f, err := parseFormat(sample)
	want := format{id: 118, gfn: field{8, 8}, level: field{24, 1}}
	if err != nil || f != want {
		t.Fatalf("got %+v, %v, want %+v", f, err, want)
	}
	for name, text := range map[string]string{
		"empty":        "",
		"no number":    strings.Replace(sample, "ID: 118", "", 1),
		"bad number":   strings.Replace(sample, "118", "x", 1),
		"no gfn":       strings.Replace(sample, "u64 gfn", "u64 other", 1),
		"odd size":     strings.Replace(sample, "offset:24;	size:1", "offset:24;	size:3", 1),
		"far offset":   strings.Replace(sample, "offset:8;", "offset:99999;", 1),
		"below zero":   strings.Replace(sample, "offset:8;", "offset:-8;", 1),
		"without name": strings.Replace(sample, "u8 level", "", 1),
	} {
		if f, err := parseFormat(text); err == nil {
			t.Errorf("%s: got %+v", name, f)
		}
	}
}

func FuzzParseFormat(f *testing.F) {
	f.Add(sample)
	f.Add("ID: 1\nfield: x y;offset:0;size:8;\n")
	raw := make([]byte, 64)
	f.Fuzz(func(t *testing.T, text string) {
		if parsed, err := parseFormat(text); err == nil {
			parsed.gfn.get(raw)
			parsed.level.get(raw)
		}
	})
}

// TestProbe compares the kernel's own format with what is expected of it, where there is one.
func TestProbe(t *testing.T) {
	f, err := readFormat()
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil || f.gfn.size != 8 || f.level.size != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := Probe(); err != nil && !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

// TestDetached reads through a mount of tracefs that is attached nowhere.
func TestDetached(t *testing.T) {
	text, err := readDetached("README")
	if err != nil {
		t.Skip("needs root and tracefs: ", err)
	}
	if !strings.Contains(string(text), "tracing") {
		t.Errorf("README of tracefs: %q", text)
	}
}
