// Package kvm wraps the ioctls of /dev/kvm, and nothing else.
//
// There are three kinds of file descriptor, as in the kernel's documentation
// (Documentation/virt/kvm/api.rst): [System] is /dev/kvm itself, [VM] is one virtual machine with its
// memory slots, [VCPU] is one virtual CPU together with its kvm_run page, the memory through which KVM
// describes an exit.
//
// # Threads
//
// The kernel expects every ioctl of a vCPU on the thread that runs it. The exceptions, the only methods
// of a VCPU that may be called from another goroutine, are [VCPU.RequestExit] and
// [VCPU.ClearExitRequest]. Everything else must be called by the vCPU's own goroutine, which has called
// runtime.LockOSThread.
//
// # Leaving the guest
//
// A running vCPU is asked to leave in two steps: RequestExit sets immediate_exit in the shared page,
// then a signal goes to its thread. The flag alone does not reach a CPU in guest mode. The signal alone
// is lost if it arrives just before the thread enters the kernel. With the flag set first, one of the
// two always works: KVM_RUN checks the flag before it enters the guest, with the signal mask of
// [VCPU.SetSignalMask] already in force.
//
// During KVM_RUN the mask blocks every signal except the one that requests an exit: the Go runtime
// sends SIGURG to its threads at any time, and each would cause a useless exit. The runtime does not
// need the signal here, because a thread in a system call needs no preemption.
//
// # Layouts
//
// The structures mirror linux/kvm.h. A test compares their sizes and offsets with the header. Those
// that are written into a state file ([Regs], [Sregs], ...) have only fields of fixed width, so that
// encoding/binary writes them in the kernel's layout.
//
// Only files named *_unsafe.go import unsafe; a review for memory errors can start there.
//
// The ioctls are those of x86-64. The package builds on other architectures, where [Open] fails.
package kvm
