/*
 * registers: holds known values in every register that a program can see, and looks at them again
 * and again. For tests of saving and restoring a machine.
 *
 * It passes sync points 1 to 12 (PORT_SYNC), where a test may save it: 1 to 4 while the registers get
 * their values, 5 to 12 again and again, each in another state; 9 to 11 are in the middle of a string
 * instruction.
 *
 * Report (PORT_FAIL) on a difference: gfn 0, offset = number of the check, expected, found.
 * Checks 0..10: rbx rbp r8..r15 and rsp; 11: rsi after the string instruction; 12: flags;
 * 13: MXCSR; 14: x87 control word; 15: the time stamp counter, which went back;
 * 16..31: low halves of xmm; 32..47: high halves; 48..63: low halves of the upper part of ymm (where
 * AVX is on); 64: x87.
 */
	.set PORT_WORD, 0x500
	.set PORT_FAIL, 0x504
	.set PORT_PROGRESS, 0x508
	.set PORT_READY, 0x50c
	.set PORT_SYNC, 0x518
	.set MXCSR, 0x3f80		/* round down, all exceptions masked */
	.set FCW, 0x067f		/* round down, double precision, all masked */
	.set FLAGS, 0x401		/* direction, carry */
	.set PATTERN, 0x0123456789abcdef

	.macro sync n
	mov $PORT_SYNC, %edx
	mov $\n, %eax
	out %eax, %dx
	.endm

/* The value for check n: PATTERN * (2n + 3). Distinct and non-zero. */
	.macro value n, reg
	movabs $PATTERN, \reg
	imul $(2 * \n + 3), \reg, \reg
	.endm

	.macro set_general n, reg
	value \n, \reg
	.endm

	.macro check_general n, reg
	value \n, %rax
	mov $\n, %ecx
	mov \reg, %rdx
	cmp %rax, %rdx
	jne wrong
	.endm

	.macro set_xmm n
	value (32 + \n), %rax
	movq %rax, %xmm\n
	pslldq $8, %xmm\n
	value (16 + \n), %rax
	pinsrq $0, %rax, %xmm\n
	.endm

	.macro check_xmm n
	value (16 + \n), %rax
	mov $(16 + \n), %ecx
	pextrq $0, %xmm\n, %rdx
	cmp %rax, %rdx
	jne wrong
	value (32 + \n), %rax
	mov $(32 + \n), %ecx
	pextrq $1, %xmm\n, %rdx
	cmp %rax, %rdx
	jne wrong
	.endm

/* The upper half of a ymm register goes through memory, for no other register is free. */
	.macro set_ymm n
	value (48 + \n), %rax
	vmovdqu %ymm\n, scratch
	mov %rax, scratch + 16
	mov %rax, scratch + 24
	vmovdqu scratch, %ymm\n
	.endm

	.macro check_ymm n
	value (48 + \n), %rax
	mov $(48 + \n), %ecx
	vmovdqu %ymm\n, scratch
	mov scratch + 16, %rdx
	cmp %rax, %rdx
	jne wrong
	mov scratch + 24, %rdx
	cmp %rax, %rdx
	jne wrong
	.endm

	.macro all what
	.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	\what \n
	.endr
	.endm

	.section .text.start, "ax"
	.globl _start
_start:
	mov %rsp, stack
	xor %ecx, %ecx
	xor %esi, %esi			/* esi: 1 when AVX is on */
	mov $1, %eax
	cpuid
	bt $28, %ecx			/* AVX */
	jnc 1f
	bt $27, %ecx			/* OSXSAVE: the VMM has switched it on */
	jnc 1f
	xor %ecx, %ecx
	xgetbv
	and $6, %eax
	cmp $6, %eax
	jne 1f
	mov $1, %esi
1:	set_general 0, %rbx
	set_general 1, %rbp
	set_general 2, %r8
	set_general 3, %r9
	set_general 4, %r10
	set_general 5, %r11
	set_general 6, %r12
	set_general 7, %r13
	set_general 8, %r14
	set_general 9, %r15
	sync 1
	all set_xmm
	ldmxcsr mxcsr
	sync 2
	test %esi, %esi
	jz 2f
	all set_ymm
2:	sync 3
	fninit
	fldcw fcw			/* before the constants, which are rounded as it says */
	fldpi
	fld1
	fldl2t
	sync 4
	mov $PORT_READY, %edx
	xor %eax, %eax
	out %eax, %dx

again:
	check_general 0, %rbx
	check_general 1, %rbp
	check_general 2, %r8
	check_general 3, %r9
	check_general 4, %r10
	check_general 5, %r11
	check_general 6, %r12
	check_general 7, %r13
	check_general 8, %r14
	check_general 9, %r15
	mov $10, %ecx
	mov stack, %rax
	mov %rsp, %rdx
	cmp %rax, %rdx
	jne wrong
	sync 5
	all check_xmm
	mov $13, %ecx
	stmxcsr scratch
	mov scratch, %edx
	mov $MXCSR, %eax
	cmp %eax, %edx
	jne wrong
	sync 6
	test %esi, %esi
	jz 3f
	all check_ymm
3:	sync 7
	mov $14, %ecx
	fnstcw scratch
	movzwl scratch, %edx
	mov $FCW, %eax
	cmp %eax, %edx
	jne wrong
	mov $64, %ecx
	fldpi				/* the stack must be log2(10), 1, pi from its top */
	fucomip %st(3), %st
	mov $3, %eax
	mov $0, %edx
	jne wrong
	fldl2t
	fucomip %st(1), %st
	mov $1, %eax
	jne wrong
	sync 8
	mov %esi, %edi			/* sync points 9, 10, 11 */
	mov $points, %esi
	mov $3, %ecx
	mov $PORT_SYNC, %edx
	rep outsl
	mov %esi, %edx
	mov %edi, %esi
	mov $points + 12, %eax
	mov $11, %ecx
	cmp %rax, %rdx
	jne wrong
	mov $PORT_SYNC, %edx
	mov $12, %eax
	std
	stc
	out %eax, %dx
	pushf
	pop %rdx
	cld
	and $FLAGS, %edx
	mov $FLAGS, %eax
	mov $12, %ecx
	cmp %rax, %rdx
	jne wrong
	rdtsc
	shl $32, %rdx
	or %rax, %rdx
	mov tsc, %rax
	mov $15, %ecx
	cmp %rax, %rdx
	jb wrong
	mov %rdx, tsc
	mov $PORT_PROGRESS, %edx
	mov $1, %eax
	out %eax, %dx
	jmp again

/* ecx: the check, rax: expected, rdx: found */
wrong:
	mov %rax, scratch
	mov %rdx, scratch + 8
	mov %ecx, %edi
	mov $PORT_WORD, %edx
	xor %eax, %eax
	out %eax, %dx			/* gfn */
	out %eax, %dx
	mov %edi, %eax
	out %eax, %dx			/* offset */
	xor %eax, %eax
	out %eax, %dx
	mov scratch, %eax		/* expected */
	out %eax, %dx
	mov scratch + 4, %eax
	out %eax, %dx
	mov scratch + 8, %eax		/* found */
	out %eax, %dx
	mov scratch + 12, %eax
	out %eax, %dx
	xor %eax, %eax
	out %eax, %dx			/* version */
	out %eax, %dx
	mov $PORT_FAIL, %edx
	mov $5, %eax
4:	out %eax, %dx
	jmp 4b

	.section .rodata
	.balign 4
points:	.long 9, 10, 11
mxcsr:	.long MXCSR
fcw:	.word FCW

	.bss
	.balign 32
scratch: .skip 32
stack:	.skip 8
tsc:	.skip 8
