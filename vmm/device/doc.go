// Package device has the devices of a virtual machine, at I/O ports and memory-mapped addresses. It
// does not depend on KVM. A device is a [Handler] on a [Bus]. It accesses guest memory through [Memory]
// and raises interrupts through a [Line]; tests use fakes of all three.
//
//	Serial    16550A UART, the console            serial.go, serial_registers.go, output.go
//	I8042     keyboard controller: resets a PC    i8042.go
//	Power     ACPI power-off and reset            power.go
//	Block     virtio-blk over a file              block.go, disk.go
//	RNG       virtio-rng                          rng.go
//	GenID     VM generation ID                    genid.go
//
// The two virtio devices share a transport (mmio.go: registers, virtio.go: worker and life cycle) and
// virtqueues (queue.go: rings, chain.go: descriptors). Each device has a state: a struct of fixed-width
// fields with the layout of its section in the state file. A [Set] owns the devices of one machine.
//
// # One request, from kick to interrupt
//
// Example: a guest's driver reads from a disk. It writes descriptors for a header, for buffers and for
// a status byte, puts the number of the first into the available ring, and increments the ring's index.
// If the device has asked for a notification, it then writes the queue's number to the register
// QueueNotify (the kick):
//
//	vCPU    KVM_RUN leaves with an MMIO exit; Bus.Write finds the device, and virtio.Write marks the
//	        queue as kicked and wakes the worker. The vCPU goes back into the guest.
//	worker  pop reads the index, the number, the descriptors: all the guest's word, all compared
//	        with the bounds of queue and RAM. Block.serve reads the header, copies from the file to
//	        the guest by way of a buffer, and writes the status byte. push puts the chain into the
//	        used ring, then its index. If the driver wants to be told of this one, the interrupt
//	        status gets a bit and the line is asserted.
//	vCPU    The driver's interrupt handler reads InterruptStatus and writes it to InterruptACK: the
//	        line goes down. Then it takes from the used ring whatever is there.
//
// The worker continues until the available ring is empty. Then it writes the index at which it needs
// the next kick, checks the ring once more, and sleeps.
//
// The line is level-triggered and active high, and ACPI should declare it so. That of a [GenID] is
// edge-triggered.
//
// An error in a request, such as a sector beyond the end of the disk, is reported in its status byte.
// If a driver breaks the rules of the ring, the device sets DEVICE_NEEDS_RESET; the rest of the machine
// continues. An error of guest memory or of the interrupt line ends the machine, by
// [VirtioConfig].Fail. An error of the disk's file is only an I/O error of the request.
//
// # Goroutines
//
// A register access runs on the vCPU's thread, and several vCPUs may access one device at once, so
// every device has a mutex. The package has these goroutines:
//
//   - the worker of each virtio device. All accesses of the device to guest memory are made here, so
//     that no vCPU waits in a register access for a page to be loaded. The worker holds no lock during
//     such an access.
//   - the writer of the output of each serial port.
//
// They start with the device and are joined by its Close. Feed is called by a goroutine of the
// machine's owner, which reads the console input.
//
// # Saving and restoring
//
// A new device is drained: it does no work until Resume. To save it:
//
//  1. The vCPUs are stopped.
//  2. [Set.Drain]: each worker finishes the request that it is at, if there is one, including its
//     interrupt. Then no request is in work, and no device touches guest memory until Resume. A
//     disk that was written to is synced: the guest's memory, which is about to be saved, says
//     that those writes are done.
//  3. [Set.States]. Requests that the driver has made available, and the device has not taken, are
//     in guest memory and nowhere else.
//  4. Only now the state of the interrupt controllers, for until here interrupts were raised.
//
// To restore: devices are made as they were, [Set.Restore], then the state of the interrupt
// controllers, then [Set.Resume], then the vCPUs. Resume sets every line to the level that follows from
// its device's state, because the state of KVM's interrupt controllers does not contain the levels of
// their inputs. It looks at every queue, because a kick may have been lost in the checkpoint. And it
// gives a restored machine its new generation ID.
//
// The contents of disks are not saved: the user must keep or copy the disks together with the
// checkpoint. A machine that is restored with a disk that has changed since the checkpoint destroys its
// file system, because it has parts of the old contents in memory. Two machines can share a disk only
// if it is read-only, because it is locked.
//
// # Randomness after a restore
//
// Two machines restored from one checkpoint have the same random number generators, and so produce
// equal keys, equal nonces and equal TCP sequence numbers, until the generators get different input.
// [RNG] gives each machine different bytes, because it stores none. But a kernel requests bytes in
// advance, and rarely; those that it got before the checkpoint are in the image. Only [GenID] tells a
// guest that it was restored. Linux has a driver since 5.18, which mixes the new ID into the kernel's
// generator when the interrupt arrives; only numbers that are drawn before that are still the same.
// Newer kernels also send a uevent (NEW_VMGENID=1), for programs that listen.
//
// A guest with an older kernel, or a kernel without CONFIG_VMGENID or ACPI, continues with the saved
// generator: it draws the same numbers as every other machine from that checkpoint, until the kernel
// next reseeds, which may take minutes. The same holds for programs with their own generators, even
// under a new kernel, until they reseed. Such guests should be saved before they draw important random
// numbers, or be made to reseed after the restore by other means.
//
// # Deadlocks
//
//   - Lock order: a device's mutex, then the locks of its Line. A Line must not call a device.
//   - VirtioConfig.Fail is called by the worker. It must not Drain or Close the device, nor wait for a
//     goroutine that does: both wait for the worker.
//   - A driver's reset of a device or of a queue waits, on the vCPU's thread, for the current request,
//     as a Drain does. If the disk's file is on a mount whose server hangs, both wait as long.
//   - Serial.Close waits for the writer of the output. If that blocks for ever, such as a pipe that
//     nobody reads, its owner must close it. Flush with a context shows whether it blocks.
package device
