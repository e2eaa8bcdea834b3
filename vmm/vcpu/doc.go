// Package vcpu runs a virtual CPU on a goroutine and thread of its own.
//
// A [Thread] is in the guest, or it is parked. While it is parked it does jobs ([Thread.Do]): every
// ioctl about the state of a vCPU is such a job, because KVM takes the vCPU's lock for as long as
// it is in the guest. Do on a vCPU that runs is refused with [ErrRunning], so state that is read is
// whole.
//
// To park a vCPU one sets what is wanted, then immediate_exit, then sends a signal. In this order
// no request is lost: a vCPU that is about to enter the guest sees the request in its shared page,
// one that is in it gets the signal. It then completes a half-done port access by one more KVM_RUN
// which never enters the guest, and parks.
//
// A vCPU that waits for a page of guest memory is in the kernel and parks when the page comes or
// fails. A caller of [Thread.AwaitParked] waits as long. Jobs and hooks run on the
// vCPU's thread; a hook must not wait for the vCPU to park.
//
// The clock of a Thread says how long it has waited for pages (clock.go).
package vcpu
