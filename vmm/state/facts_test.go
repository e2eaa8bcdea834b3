package state

import (
	"testing"

	"github.com/thawfs/thaw/vmm/guest"
)

// The sections of devices are required of a kernel's machine and refused of others.
func TestDeviceSections(t *testing.T) {
	s := sampleState()
	s.Facts.Guest = guest.Spec{Program: LinuxGuest, Args: map[string]string{"kernel": "/boot/vmlinuz"}}
	s.Facts.Disks = []Disk{{Path: "/a"}, {Path: "/b", ReadOnly: true}}
	s.Ports = Ports{}
	for _, d := range s.Facts.devices() {
		d.Data = []byte(sectionKey(d.Tag, d.Index))
		s.Devices = append(s.Devices, d)
	}
	list, err := s.sections()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeMachine(list)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Devices) != 7 || string(got.Devices[6].Data) != "VIRTBLK 1" {
		t.Errorf("%+v", got.Devices)
	}
	for i := range list {
		without := append(append([]section{}, list[:i]...), list[i+1:]...)
		_, err := decodeMachine(without)
		wantStateError(t, "without "+list[i].tag, err)
		_, err = decodeMachine(append(append([]section{}, list...), list[i]))
		wantStateError(t, "twice "+list[i].tag, err)
	}
	for what, change := range map[string]func(*Facts){
		"a third disk":             func(f *Facts) { f.Disks = append(f.Disks, Disk{}) },
		"a disk less":              func(f *Facts) { f.Disks = f.Disks[:1] },
		"more than there can be":   func(f *Facts) { f.Disks = make([]Disk, MaxDisks+1) },
		"no interrupt controllers": func(f *Facts) { f.IRQChip = false },
		"disks of a guest program": func(f *Facts) { f.Guest = guest.Spec{Program: "idle"} },
	} {
		other := s
		change(&other.Facts)
		list, err := other.sections()
		if err != nil {
			t.Fatal(err)
		}
		_, err = decodeMachine(list)
		wantStateError(t, what, err)
	}
}
