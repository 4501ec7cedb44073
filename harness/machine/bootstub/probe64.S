/* The last step of the probe, in 64-bit mode: report with a register only that mode has, and leave. */
	.text
	.code64
	.globl	in_64_bits
in_64_bits:
	leaq	message(%rip), %rsi
	movl	$(message_end - message), %ecx
	movl	$0x3f8, %edx			/* COM1 */
	rep outsb
	movl	$0x55, %r8d			/* QEMU's exit status: 171 */
	movl	%r8d, %eax
	movl	$0xf4, %edx			/* isa-debug-exit */
	outl	%eax, %dx
0:	hlt
	jmp	0b

	.section .rodata
message:
	.ascii	"dfly-harness probe: 64-bit mode reached\r\n"
message_end:

	.section .note.GNU-stack, "", @progbits
