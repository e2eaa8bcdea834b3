// Package state is the state of a machine except its memory: how it is read from KVM and set again, its
// file format, and the contents of a checkpoint directory.
//
// # The state of a machine
//
// A [Machine] has [Facts], which never change (RAM, number of vCPUs, guest, disks), and what changes as
// it runs: each [VCPU], the [Chips] that they share, the port device of a guest program ([Ports]), and
// the devices of a kernel. All vCPUs must be paused while it is read, with no access half done.
//
// The order of the steps matters: each may change what an earlier one has read or written. vcpu.go has
// the order for a vCPU, and chips.go for interrupt controllers and clocks; comments say what breaks in
// another order. msrs.go lists the model-specific registers that are saved. Package vmm has the order
// of these parts: devices, vCPUs, chips when the state is read; vCPUs, chips, devices when it is set.
//
// # The file
//
// file.go describes the state file byte by byte, and its versions; all older versions stay readable.
// sections.go and machine.go convert a [Machine] to sections and check what is read: a file that is
// damaged, or has impossible values, is refused with a [*FileError]. [Inspect] lists a file field by
// field, so that every byte is in some field, and [Diff] compares two.
//
// # The directory
//
// [Open] reads the state of a checkpoint directory. [Checkpoint.OpenImage] opens its memory; only this
// makes a mount prefetch the working set. A checkpoint has an [ID], a hash of its state. A differential
// checkpoint has in its memory file only the pages that changed since its parent, and a section CHANGED
// that lists them and names the parent with its ID (changed.go). [OpenImage] puts the image together,
// from up to 64 directories. If a parent is missing, or was replaced by another checkpoint, the error
// is a [*ParentError]; the image never has wrong bytes.
//
// # The host
//
// A guest learns the features of its CPU once (cpuid.go) and chooses code by them. So a restore first
// compares them with this host (host.go). If the host lacks a feature, the error is a [*HostError] with
// the names of the features; the caller may ignore it.
package state
