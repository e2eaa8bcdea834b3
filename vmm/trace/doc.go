// Package trace tells which pages of guest memory the vCPUs of a machine touch for the first time:
// which page, when, and which vCPU.
//
// KVM has a tracepoint, kvmmmu:kvm_mmu_spte_requested, that is passed each time it resolves a fault
// of a guest for a page (mmu.c direct_page_fault and the tdp_mmu, paging_tmpl.h fetch), on the thread
// of the vCPU. If no page is mapped in the VMM's own page table when the tracing begins, the first
// touch of each page is such a fault, so the tracepoint sees every first touch, exactly once and in
// order. That is the condition: KVM maps neighbours that the host has at hand without a word, so a
// machine whose memory is mapped already shows a part only. [vmm.Machine] sees to it by mapping
// guest memory again onto the image that it has just saved.
//
// # How the events come here
//
// A perf event for each vCPU's thread (perf_event_open(2), PERF_TYPE_TRACEPOINT) writes a record per
// fault into a ring that is mapped shared: number of the page, time of CLOCK_MONOTONIC. A [Tracer]
// drains the rings. It costs the guest well under a microsecond a fault, beside the 4 that the fault
// takes. What does not fit into a ring is counted by the kernel, never silently left out.
//
// The tracepoint's number and the place of its fields stand in tracefs. Where that is not mounted a
// detached mount of it is made for the moment, which nobody else sees. All of it needs root, or
// CAP_PERFMON and a tracefs that may be read. [Probe] says what is lacking.
package trace
