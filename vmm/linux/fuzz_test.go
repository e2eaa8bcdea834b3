package linux

import (
	"strings"
	"testing"
)

// fuzzLoad loads a file as kernel. It may be refused, before anything is written; if it is loaded,
// everything lies where it may.
func fuzzLoad(t *testing.T, file []byte, initrd uint16) {
	m := newGuestMemory(ramOf(64 * mib))
	c := Config{Kernel: reader(file), Cmdline: "quiet", RAM: []Range{{0, 48 * mib}, {49 * mib, 15 * mib}}}
	if initrd > 0 {
		c.Initrd = reader([]byte(strings.Repeat("i", int(initrd))))
	}
	m.ram = []Range{{0, 0x9_fc00}, {mib, 47 * mib}, {49 * mib, 15 * mib}}
	e, err := Load(m, c)
	if err != nil {
		if m.writes > 0 {
			t.Errorf("%v after %d writes", err, m.writes)
		}
		return
	}
	checkEntry(t, m, e)
}

// small keeps the seeds short.
func (i testImage) small() testImage {
	i.setupSects, i.protected = 1, i.protected[:1000]
	return i
}

func FuzzBzImage(f *testing.F) {
	image := sampleImage().small()
	f.Add(image.file(), uint16(5000))
	image.relocatable, image.initSize = 0, ^uint32(0)
	f.Add(image.file(), uint16(0))
	image.prefAddress, image.alignment = ^uint64(0), 1<<31
	f.Add(image.file(), uint16(1))
	f.Fuzz(func(t *testing.T, file []byte, initrd uint16) {
		if len(file) >= hdrMagic+4 {
			copy(file[hdrMagic:], "HdrS")
		}
		fuzzLoad(t, file, initrd)
	})
}

func FuzzELF(f *testing.F) {
	e := sampleELF()
	f.Add(e.file(), uint16(5000))
	e.progs[2].Memsz = ^uint64(0)
	f.Add(e.file(), uint16(0))
	e.header.Phoff, e.header.Phnum = ^uint64(0), 0xffff
	f.Add(e.file(), uint16(1))
	f.Fuzz(func(t *testing.T, file []byte, initrd uint16) {
		copy(file, "\x7fELF")
		fuzzLoad(t, file, initrd)
	})
}
