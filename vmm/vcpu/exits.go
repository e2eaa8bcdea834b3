package vcpu

import (
	"sync/atomic"

	"github.com/thawfs/thaw/vmm/kvm"
)

// exitCounts counts a vCPU's exits by their reason.
type exitCounts [64]atomic.Uint64

func (e *exitCounts) count(r kvm.ExitReason) { e[min(uint32(r), uint32(len(e)-1))].Add(1) }

func (e *exitCounts) byReason() map[string]uint64 {
	m := make(map[string]uint64)
	for i := range e {
		if n := e[i].Load(); n > 0 {
			m[kvm.ExitReason(i).String()] = n
		}
	}
	return m
}
