// Package state is what a machine is besides its memory: how it is read from KVM and written into
// it, how it lies in a checkpoint, and what a checkpoint directory consists of.
//
// # The state of a machine
//
// A [Machine] has [Facts] (what the machine is: RAM, number of vCPUs, guest, disks) and what
// changes as it runs: each [VCPU], the [Chips] that they share, the port device of a guest program
// ([Ports]), and the devices of a kernel. To read it all vCPUs have to be paused, with no access
// half done.
//
// The order of the steps is part of the state: each may change what an earlier one has read or
// written. vcpu.go has that of a vCPU, chips.go that of interrupt controllers and clocks, msrs.go
// says which model specific registers are part of it; each step says what breaks without it.
// Package vmm has the order between these parts: devices before vCPUs before chips when it is read,
// vCPUs before chips before devices when it is set.
//
// # The file
//
// file.go describes the state file byte by byte and its versions: all older ones are read, for
// good. sections.go and machine.go make sections of a [Machine] and check what is read: of a file
// that is damaged, or claims what cannot be, nothing is believed, and the error is a [*FileError].
// [Inspect] lays a file open field by field, every byte in some field, and [Diff] compares two.
//
// # The directory
//
// [Open] reads the state of a checkpoint directory; [Checkpoint.OpenImage] opens its memory, and
// only this asks a mount for the working set. A checkpoint has an [ID], a hash of its state. A
// differential one has in its memory file only the pages that changed since its parent, and a
// section CHANGED that lists them and names the parent with its ID (changed.go); [OpenImage] puts
// the image together again, from up to 64 directories. A parent that is gone, or is another
// checkpoint by now, is a [*ParentError], never other bytes.
//
// # The host
//
// A guest is told of its CPU once (cpuid.go) and chooses code by that, so a restore compares the
// host with what the guest was told (host.go) before anything else costs time. What this host lacks
// is a [*HostError] with the names of the features; the caller may pass over it.
package state
