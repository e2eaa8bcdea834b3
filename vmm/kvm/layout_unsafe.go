package kvm

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// Offsets into struct kvm_run.
const (
	runRequestWord = 0 // the word whose second byte is immediate_exit
	runExitReason  = 8
	runIO          = 32
	runMMIO        = 32
	runInternal    = 32
	runMemoryFault = 32
	runMinSize     = 2352
)

// runPage is a vCPU's struct kvm_run. Apart from the request word it is written by the kernel
// during KVM_RUN and read by the vCPU's thread after it, so plain loads are enough.
type runPage struct{ b []byte }

// requestExit sets or clears immediate_exit. It is a byte, and sync/atomic has no bytes: the word
// around it holds request_interrupt_window, which this VMM never sets, and padding.
func (p runPage) requestExit(on bool) {
	word := (*uint32)(unsafe.Pointer(&p.b[runRequestWord]))
	v := uint32(0)
	if on {
		v = 1 << 8
	}
	atomic.StoreUint32(word, v)
}

func (p runPage) u32(off int) uint32 { return binary.LittleEndian.Uint32(p.b[off:]) }
func (p runPage) u64(off int) uint64 { return binary.LittleEndian.Uint64(p.b[off:]) }
