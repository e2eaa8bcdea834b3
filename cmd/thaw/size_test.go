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
	for n, want := range map[sizeFlag]string{0: "0", 4096: "4KiB", 3 << 29: "1.5GiB",
		1 << 30: "1GiB", 100 << 20: "100MiB", 1<<30 + 4096: "1073745920"} {
		if n.String() != want {
			t.Errorf("flag prints %q, want %q", n.String(), want)
		}
		var f sizeFlag
		if err := f.Set(n.String()); err != nil || f != n {
			t.Errorf("flag reads %s as %d, %v", n.String(), f, err)
		}
	}
}
