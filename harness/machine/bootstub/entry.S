/*
 * The way in (multiboot 1, 32-bit protected mode, no paging) and the way out (64-bit mode, paging on) of the boot stub.
 */
	.section .multiboot, "ax"
	.balign	4
	.set	HEADER_MAGIC, 0x1badb002
	.set	HEADER_FLAGS, 0x00000003	/* modules on page boundaries; memory map wanted */
	.long	HEADER_MAGIC
	.long	HEADER_FLAGS
	.long	-(HEADER_MAGIC + HEADER_FLAGS)

	.text
	.code32
	.globl	start
start:
	cli
	cld
	movl	$stack_top, %esp
	pushl	%ebx				/* multiboot information */
	pushl	%eax				/* multiboot magic */
	call	stub_main
0:	hlt
	jmp	0b

/*
 * void enter_long_mode(uint32_t page_table, uint32_t stack, uint32_t entry_low, uint32_t entry_high)
 *
 * Turns paging and 64-bit mode on and jumps to ENTRY with the stack pointer at STACK.  PAGE_TABLE and STACK are physical
 * addresses below 4 GB; the page table must map this code where it is.
 */
	.globl	enter_long_mode
enter_long_mode:
	movl	4(%esp), %eax
	movl	8(%esp), %ebx
	movl	12(%esp), %esi
	movl	16(%esp), %edi
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x30, %eax			/* PAE, PSE */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx		/* EFER */
	rdmsr
	orl	$0x100, %eax			/* LME */
	wrmsr
	lgdt	gdt_pointer
	movl	%cr0, %eax
	orl	$0x80000000, %eax		/* PG */
	movl	%eax, %cr0
	ljmp	$0x08, $in_long_mode

	.code64
in_long_mode:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	movl	%ebx, %esp
	movl	%esi, %eax
	shlq	$32, %rdi
	orq	%rdi, %rax
	xorl	%ebp, %ebp
	jmpq	*%rax

	.section .rodata
	.balign	8
gdt:
	.quad	0
	.quad	0x00af9a000000ffff		/* 0x08: 64-bit code */
	.quad	0x00cf92000000ffff		/* 0x10: data */
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.bss
	.balign	16
	.skip	8192
stack_top:

	.section .note.GNU-stack, "", @progbits
