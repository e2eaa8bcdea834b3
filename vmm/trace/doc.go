// Package trace records the first touches of guest memory by the vCPUs of a machine: which page, when,
// and which vCPU.
//
// KVM has a tracepoint, kvmmmu:kvm_mmu_spte_requested, which fires each time KVM resolves a page fault
// of a guest (mmu.c direct_page_fault and the tdp_mmu, paging_tmpl.h fetch), on the vCPU's thread. If
// no page is mapped in the VMM's own page table when the trace begins, the first touch of each page is
// such a fault, so the tracepoint reports every first touch, exactly once and in order. This condition
// is necessary: KVM maps resident neighbours of a page without an event, so with memory that is mapped
// already the trace is incomplete. [vmm.Machine] meets it by mapping guest memory again from the
// checkpoint that it has just saved.
//
// # How events are read
//
// A perf event for each vCPU's thread (perf_event_open(2), PERF_TYPE_TRACEPOINT) writes a record for
// each fault into a shared ring: the page number and the time of CLOCK_MONOTONIC. A [Tracer] drains the
// rings. This costs the guest well under a microsecond for each fault, which itself takes 4 us. The
// kernel counts records that do not fit into a ring; none is lost without being counted.
//
// The tracepoint's number and the offsets of its fields are read from tracefs. If that is not mounted,
// a detached mount of it, invisible to others, is used for a moment. Tracing needs root, or CAP_PERFMON
// and read access to tracefs. [Probe] says what is missing.
package trace
