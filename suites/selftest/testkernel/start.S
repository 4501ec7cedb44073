/* The entry of the test kernel: takes its arguments from where a DragonFly kernel takes them (locore.s: btext). */
	.text
	.globl	btext
btext:
	movq	%rsp, %rbp
	pushq	$2				/* the stack below must be memory, as the real kernel uses it */
	popfq
	movl	4(%rbp), %edi
	movl	8(%rbp), %esi
	movq	$stack_top, %rsp
	xorl	%ebp, %ebp
	call	kernel_main
0:	hlt
	jmp	0b

	.data
/* Static variables of functions, as gcc numbers them: one name used once, one used twice. */
nextpid.1:
	.long	100
count.3:
	.long	0
count.4:
	.long	0
	.type	nextpid.1, @object
	.size	nextpid.1, 4

	.section .dynamic, "aw"
	.quad	0, 0

	.bss
	.balign	16
	.skip	8192
stack_top:

	.section .note.GNU-stack, "", @progbits
