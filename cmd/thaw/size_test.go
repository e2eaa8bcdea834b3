package main

import "testing"

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
	}{
		{"0", 0}, {"4096", 4096}, {"64KiB", 64 << 10}, {"64k", 64 << 10}, {"512M", 512 << 20},
		{"1.5GiB", 3 << 29}, {"1G", 1 << 30}, {"10MB", 10_000_000}, {"2 TiB", 2 << 40},
	} {
		if got, err := parseSize(c.text); err != nil || got != c.want {
			t.Errorf("%q: %d, %v; want %d", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"", "x", "1XiB", "-1", "G", "9999999999T"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
	f := sizeFlag(1 << 30)
	if f.String() != "1.0GiB" {
		t.Errorf("flag prints %q", f.String())
	}
	if err := f.Set(f.String()); err != nil || f != 1<<30 {
		t.Errorf("flag reads what it prints as %d, %v", f, err)
	}
}
