package vmm

import (
	"strings"
	"testing"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/guest"
)

// The sections of devices are required of a kernel's machine and refused of others.
func TestDeviceSections(t *testing.T) {
	s := sampleState()
	s.facts.Guest = guest.Spec{Program: kernelGuest, Args: map[string]string{"kernel": "/boot/vmlinuz"}}
	s.facts.Disks = []Disk{{Path: "/a"}, {Path: "/b", ReadOnly: true}}
	s.ports = portState{}
	for _, key := range s.facts.deviceKeys() {
		tag, index, _ := strings.Cut(key, " ")
		s.devices = append(s.devices, device.Section{Tag: tag, Index: uint32(index[0] - '0'),
			Data: []byte(key)})
	}
	list, err := s.sections()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeSaved(list)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.devices) != 7 || string(got.devices[6].Data) != "VIRTBLK 1" {
		t.Errorf("%+v", got.devices)
	}
	for i := range list {
		without := append(append([]section{}, list[:i]...), list[i+1:]...)
		_, err := decodeSaved(without)
		wantStateError(t, "without "+list[i].tag, err)
		_, err = decodeSaved(append(append([]section{}, list...), list[i]))
		wantStateError(t, "twice "+list[i].tag, err)
	}
	for what, change := range map[string]func(*facts){
		"a third disk":             func(f *facts) { f.Disks = append(f.Disks, Disk{}) },
		"a disk less":              func(f *facts) { f.Disks = f.Disks[:1] },
		"more than there can be":   func(f *facts) { f.Disks = make([]Disk, MaxDisks+1) },
		"no interrupt controllers": func(f *facts) { f.IRQChip = false },
		"disks of a guest program": func(f *facts) { f.Guest = guest.Spec{Program: "idle"} },
	} {
		other := s
		change(&other.facts)
		list, err := other.sections()
		if err != nil {
			t.Fatal(err)
		}
		_, err = decodeSaved(list)
		wantStateError(t, what, err)
	}
}
