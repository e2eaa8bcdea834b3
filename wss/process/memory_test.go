package process

import (
	"errors"
	"strings"
	"testing"
)

const mapsText = `55a0c0000000-55a0c0001000 r--p 00000000 fe:00 1311 /usr/bin/vmm with a name
7f0000000000-7f0040000000 rw-p 00000000 00:00 0
7f1000000000-7f1010000000 rw-s 00000000 00:01 1027 /memfd:ram (deleted)
7f1010000000-7f1020000000 rw-s 10000000 00:01 1027 /memfd:ram (deleted)
7f2000000000-7f2000001000 rw-s 00000000 00:0d 9 anon_inode:[io_uring]
7f3000000000-7f3000100000 r--s 00000000 00:01 77 /memfd:other
`

func TestChoose(t *testing.T) {
	all, err := parseMaps(strings.NewReader(mapsText))
	if err != nil || len(all) != 6 {
		t.Fatal(len(all), err)
	}
	list, private := candidates(all)
	c, err := choose(list, private, nil)
	if err != nil || c.inode != 1027 || c.bytes != 512<<20 || c.path != "/memfd:ram (deleted)" ||
		len(c.maps) != 2 || private != 1<<30 {
		t.Errorf("%+v, %v, %d", c, err, private)
	}
	// What is mapped twice counts once.
	again := append(all, all[2])
	list, _ = candidates(again)
	if c, err := choose(list, 0, nil); err != nil || c.bytes != 512<<20 {
		t.Errorf("mapped twice: %+v, %v", c, err)
	}
	two := strings.Replace(mapsText, "r--s 00000000 00:01 77", "rw-s 00000000 00:01 77", 1)
	two = strings.Replace(two, "7f3000100000", "7f3010000000", 1)
	if all, err = parseMaps(strings.NewReader(two)); err != nil {
		t.Fatal(err)
	}
	list, _ = candidates(all)
	if _, err := choose(list, 0, nil); !errors.Is(err, ErrAmbiguous) ||
		!strings.Contains(err.Error(), "/memfd:other") {
		t.Errorf("two of them: %v", err)
	}
	if c, err := choose(list, 0, func(c candidate) bool { return c.inode == 77 }); err != nil ||
		c.path != "/memfd:other" {
		t.Errorf("told which: %v, %v", c, err)
	}
	all, err = parseMaps(strings.NewReader(strings.ReplaceAll(mapsText, "rw-s", "rw-p")))
	if err != nil {
		t.Fatal(err)
	}
	list, private = candidates(all)
	if _, err := choose(list, private, nil); !errors.Is(err, ErrNoRAM) ||
		!strings.Contains(err.Error(), "1536 MiB of memory are mapped private") {
		t.Errorf("private: %v", err)
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add(mapsText)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseMaps(strings.NewReader(text))
		if err != nil {
			return
		}
		list, _ := candidates(all)
		for _, c := range list {
			_ = c.covered()
		}
	})
}
