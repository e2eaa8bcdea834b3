// Package firecracker is a process that plays the part of Firecracker in a restore through userfaultfd:
// it maps anonymous memory, registers it, hands the userfaultfd over with a message about its regions,
// and keeps a copy of both, as Firecracker does. Then it does to its memory what a guest and a balloon
// do, and compares each page with what it must hold.
//
//	func TestMain(m *testing.M) { firecracker.MainIfChild(); os.Exit(cli.Main(m)) }
//
//	vm := firecracker.Start(t)
//	vm.Must(t, firecracker.Request{Op: "hand", Socket: path, Source: image})
//	vm.Must(t, firecracker.Request{Op: "live", Threads: 8, Steps: 1000})
//
// It is no VMM: no guest runs, and no code of Firecracker. What it sends is what Firecracker's source sends.
package firecracker
