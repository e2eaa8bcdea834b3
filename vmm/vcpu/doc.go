// Package vcpu runs a virtual CPU on its own goroutine and thread.
//
// A [Thread] is in the guest, or it is parked. While parked it runs jobs ([Thread.Do]). Every ioctl on
// the state of a vCPU is such a job, because KVM holds the vCPU's lock while it is in the guest. Do
// fails with [ErrRunning] if the vCPU runs, so the state is always read consistently.
//
// To park a vCPU, the request is set, then immediate_exit, and then a signal is sent. In this order no
// request is lost: a vCPU that is about to enter the guest sees immediate_exit in its shared page, and
// one in the guest gets the signal. It then completes a half-done port access by one more KVM_RUN,
// which does not enter the guest, and parks.
//
// A vCPU that waits for a page of guest memory is in the kernel, and parks when the page is loaded or
// its read fails. [Thread.AwaitParked] waits that long. Jobs and hooks run on the vCPU's thread; a hook
// must not wait for the vCPU to park.
//
// [Thread.Stalled] says how long the vCPU has waited for pages (clock.go).
package vcpu
