// Package kvm wraps the ioctls of /dev/kvm, and nothing else.
//
// There are three kinds of file descriptor, as in the kernel's documentation
// (Documentation/virt/kvm/api.rst): [System] is /dev/kvm itself, [VM] is one virtual machine with
// its memory slots, [VCPU] is one virtual CPU together with its kvm_run page, the memory that the
// kernel and the VMM share to talk about exits.
//
// # Threads
//
// The kernel expects every ioctl of a vCPU on the thread that runs it. The exceptions, the only
// methods of a VCPU that may be called from another goroutine, are [VCPU.RequestExit] and
// [VCPU.ClearExitRequest]. Everything else belongs to the vCPU's own goroutine, which has called
// runtime.LockOSThread.
//
// # Leaving the guest
//
// A running vCPU is asked to leave in two steps: RequestExit sets immediate_exit in the shared
// page, then a signal goes to its thread. The flag alone does not reach a CPU that is in guest
// mode; the signal alone is lost when it arrives just before the thread enters the kernel. With
// the flag set first one of the two always works: KVM_RUN looks at the flag on its way in, with
// the signal mask of [VCPU.SetSignalMask] already in force.
//
// The mask blocks every signal but the kick for the time in the guest, because the Go runtime
// sends SIGURG to its threads whenever it likes, and each would be an exit for nothing. The
// runtime loses nothing by it: a thread in a system call needs no preemption.
//
// # Layouts
//
// The structures mirror linux/kvm.h. Their sizes and offsets are compared with the header by a
// test. The ones that are written into a state file ([Regs], [Sregs], ...) are plain arrays of
// fixed width, so that encoding/binary writes them as the kernel lays them out.
//
// Only files called *_unsafe.go import unsafe: a reviewer who looks for memory errors starts there.
//
// The ioctls are those of x86-64. The package builds on other architectures, where [Open] fails.
package kvm
