// Package device has the devices of a virtual machine: what a guest finds at its I/O ports and in
// the holes of its memory. It knows nothing of KVM. A device is a [Handler] on a [Bus]; it reaches
// guest memory through [Memory] and raises interrupts through a [Line]. All of them are fakes in
// the tests.
//
//	Serial    16550A UART, the console            serial.go, serial_registers.go, output.go
//	I8042     keyboard controller: resets a PC    i8042.go
//	Power     ACPI power-off and reset            power.go
//	Block     virtio-blk over a file              block.go, disk.go
//	RNG       virtio-rng                          rng.go
//	GenID     VM generation ID                    genid.go
//
// The two virtio devices share a transport (mmio.go: registers, virtio.go: life) and virtqueues
// (queue.go: rings, chain.go: descriptors). Each device has a state: a
// struct of fixed width, whose layout is that of its section in the state file. A [Set] owns the
// devices of one machine.
//
// # One request, from kick to interrupt
//
// A guest's driver reads from a disk. It writes descriptors of a header, of buffers and of a status
// byte, puts the number of the first into the available ring, and adds one to the ring's index. It
// then looks whether the device wants to be told of that, and if so writes the queue's number to
// the register QueueNotify:
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
// The worker goes on until the available ring is empty. Then it says at which index it wants to be
// kicked, looks once more, and sleeps.
//
// The line is level-triggered and active high, and ACPI should declare it so. That of a [GenID] is
// edge-triggered.
//
// What is wrong with a request itself, such as a sector behind the end, goes into its status byte.
// A driver that breaks the rules of the ring finds the device asking to be reset, and still has the
// rest of its machine. An error of guest memory or of the interrupt line ends the machine, with
// [VirtioConfig].Fail. An error of the disk's file is an I/O error of the request and nothing more.
//
// # Goroutines
//
// A register access runs on the vCPU's thread, and several vCPUs may be in one device: every device
// has a mutex. These goroutines are the package's own:
//
//   - the worker of each virtio device. All that the device does with guest memory it does here,
//     so that no vCPU waits in a register for a page that has to be fetched. It holds no lock
//     meanwhile.
//   - the writer of each serial port's output.
//
// They begin with the device and are joined by its Close. Feed is called by a goroutine of the
// machine's owner, one that reads a terminal.
//
// # Saving and restoring
//
// A device is made drained: it does nothing of its own until Resume. To save it:
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
// controllers, then [Set.Resume], then the vCPUs. Resume puts every line to the level that its
// device's state asks for, since the state of KVM's interrupt controllers does not have the levels
// of their inputs; it looks at every queue, since a kick may have been on its way; and it gives a
// restored machine its new generation ID.
//
// What is not saved: the contents of a disk, which has to be kept, or copied, with the checkpoint
// by whoever wants to restore it. A machine that is restored onto a disk that has changed since
// destroys its file system, for it has parts of the old contents in memory. Two machines cannot
// have one disk, other than read-only: it is locked.
//
// # Randomness after a restore
//
// Two machines restored from one checkpoint are the same machine. So are their random number
// generators, which means equal keys, equal nonces and equal TCP sequence numbers, until something
// tells them apart. [RNG] gives each of them bytes of its own: it keeps none. But a kernel asks for
// them ahead of time, and rarely; what it had got before the checkpoint is in the image. Only
// [GenID] tells a guest that it was restored. Linux has a driver since 5.18, which mixes the new ID
// into the kernel's generator when the interrupt arrives; only what a vCPU draws in the moments
// before that is still the same. Newer kernels also send a uevent (NEW_VMGENID=1), for programs
// that listen.
//
// A guest with an older kernel, or one that was built without CONFIG_VMGENID or ACPI, goes on with
// the generator that it had: what it draws is what every other machine from that checkpoint draws,
// until the kernel next reseeds, which may take minutes. Programs that keep a generator of their
// own do so even under a new kernel, until they seed it again. Such guests should be checkpointed
// before they draw anything that matters, or be made to reseed after the restore by other means.
//
// # Deadlocks
//
//   - Lock order: a device's mutex, then what its Line takes. A Line must not call a device.
//   - VirtioConfig.Fail is called by the worker. It must not Drain or Close the device, nor wait
//     for somebody who does: both wait for the worker.
//   - A driver's reset of a device, and of a queue, waits on the vCPU's thread for the request in
//     work, as a Drain does. The file that the request is at must come to an end: on a mount whose
//     server hangs, neither stops.
//   - Serial.Close waits for the writer of the output. One that blocks for ever, such as a pipe
//     that nobody reads, must be closed by its owner; Flush with a context says whether that is so.
package device
