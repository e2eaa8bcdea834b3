/* Entry of every guest program. The VMM has set the stack pointer, page tables and segments. */
	.section .text.start, "ax"
	.globl _start
_start:
	call main
	mov $0x510, %dx		/* PORT_DONE, should a program ever return */
	xor %eax, %eax
1:	out %eax, %dx
	jmp 1b
