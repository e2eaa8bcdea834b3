package state

import (
	"fmt"
	"strings"

	"github.com/thawfs/thaw/vmm/kvm"
)

// Registers of a CPUID entry.
const (
	eax = iota
	ebx
	ecx
	edx
)

// featureWord is a register of a CPUID leaf whose bits are features. A guest may have chosen its code
// by them. If a feature is missing after a restore, the guest later executes an invalid instruction or
// accesses a register that does not exist.
type featureWord struct {
	leaf, index uint32
	reg         int
	names       string // of bits 0, 1, ...; "-": no name
	ignore      uint32 // bits that are not features: they depend on the guest's settings or on the topology
}

func featureWords() []featureWord {
	return []featureWord{
		{leaf: 1, reg: ecx, ignore: leaf1OSXSAVE, names: `sse3 pclmulqdq dtes64 monitor ds_cpl vmx smx
			est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic movbe popcnt
			tsc_deadline aes xsave osxsave avx f16c rdrand hypervisor`},
		{leaf: 1, reg: edx, ignore: leaf1HTT, names: `fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr
			pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe`},
		{leaf: 7, reg: ebx, names: `fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms
			invpcid rtm cqm zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma -
			clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl`},
		{leaf: 7, reg: ecx, ignore: leaf7OSPKE, names: `prefetchwt1 avx512vbmi umip pku ospke waitpkg
			avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq -
			la57 - - - - - rdpid key_locker bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc
			pks`},
		{leaf: 7, reg: edx, names: `- sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr - -
			avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort - rtm_force_abort serialize
			hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8
			spec_ctrl stibp flush_l1d arch_capabilities core_capabilities ssbd`},
		{leaf: 7, index: 1, reg: eax, names: `sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd
			arch_perfmon_ext - fzrm fsrs fsrc - - - - fred lkgs wrmsrns nmi_source amx_fp16 hreset
			avx_ifma - - lam msrlist - - invd_disable`},
		{leaf: 7, index: 1, reg: edx, names: `- - - - avx_vnni_int8 avx_ne_convert - - amx_complex -
			avx_vnni_int16 - - - prefetchi user_msr - uiret_uif cet_sss avx10`},
		{leaf: 7, index: 2, reg: edx, names: `psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no`},
		{leaf: 0xd, reg: eax, names: `xcr0:x87 xcr0:sse xcr0:avx xcr0:bndregs xcr0:bndcsr xcr0:opmask
			xcr0:zmm_hi256 xcr0:hi16_zmm xcr0:pt xcr0:pkru xcr0:pasid xcr0:cet_u xcr0:cet_s xcr0:hdc
			xcr0:uintr xcr0:lbr xcr0:hwp xcr0:amx_tilecfg xcr0:amx_tiledata`},
		{leaf: 0xd, index: 1, reg: eax, names: `xsaveopt xsavec xgetbv1 xsaves xfd`},
		{leaf: 0x80000001, reg: ecx, names: `lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a
			misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext
			perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx addr_mask_ext -`},
		{leaf: 0x80000001, reg: edx, names: `fpu vme de pse tsc msr pae mce cx8 apic - syscall mtrr pge
			mca cmov pat pse36 - mp nx - mmxext mmx fxsr fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow`},
		{leaf: 0x80000007, reg: edx, names: `- - - - - - - - invariant_tsc`},
		{leaf: 0x80000008, reg: ebx, names: `clzero irperf xsaveerptr invlpgb rdpru - mba - - wbnoinvd -
			- ibpb int_wbinvd ibrs amd_stibp ibrs_always stibp_always ibrs_preferred ibrs_same_mode
			no_efer_lmsle - - ppin amd_ssbd virt_ssbd ssb_no cppc amd_psfd btc_no ibpb_ret`},
		{leaf: 0x80000021, reg: eax, names: `no_nested_data_bp fsgs_non_serializing lfence_rdtsc
			smm_page_cfg_lock - verw_clear null_sel_clr_base upper_address_ignore auto_ibrs
			no_smm_ctl_msr fsrs_amd fsrc_amd - prefetchctl - - - adml - - prefetchi - - - erapm - -
			sbpb ibpb_brtype srso_no srso_user_kernel_no`},
		{leaf: 0x40000001, reg: eax, names: `kvm:clocksource kvm:nop_io_delay kvm:mmu_op
			kvm:clocksource2 kvm:async_pf kvm:steal_time kvm:pv_eoi kvm:pv_unhalt - kvm:pv_tlb_flush
			kvm:async_pf_vmexit kvm:pv_send_ipi kvm:poll_control kvm:pv_sched_yield kvm:async_pf_int
			kvm:msi_ext_dest_id kvm:hc_map_gpa_range kvm:migration_control - - - - - -
			kvm:clocksource_stable`},
	}
}

// name returns the name of a bit.
func (w featureWord) name(bit int) string {
	if names := strings.Fields(w.names); bit < len(names) && names[bit] != "-" {
		return names[bit]
	}
	return fmt.Sprintf("cpuid %#x.%d e%cx[%d]", w.leaf, w.index, "abcd"[w.reg], bit)
}

// in returns the word's value in a CPUID list; 0 if the list does not have the leaf.
func (w featureWord) in(list []kvm.CPUIDEntry) uint32 {
	for _, e := range list {
		if e.Function == w.leaf && e.Index == w.index {
			return [...]uint32{e.EAX, e.EBX, e.ECX, e.EDX}[w.reg]
		}
	}
	return 0
}

// namesOf lists the features whose bits are set in v.
func (w featureWord) namesOf(v uint32) (names []string) {
	for bit := range 32 {
		if v&(1<<bit) != 0 {
			names = append(names, w.name(bit))
		}
	}
	return names
}

// missingFeatures names the features that saved has and host does not.
func missingFeatures(saved, host []kvm.CPUIDEntry) (names []string) {
	for _, w := range featureWords() {
		names = append(names, w.namesOf(w.in(saved)&^w.in(host)&^w.ignore)...)
	}
	return names
}
