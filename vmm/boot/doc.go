// Package boot says what a guest finds at its start, in memory and in the registers of its vCPUs: a
// guest program in 64-bit mode and ring 3 with page tables that the VMM made (program.go,
// tables.go), or a Linux kernel at the entry of its boot protocol (kernel.go). layout.go has the
// map of the guest's physical addresses. It is not used by a restore.
package boot
