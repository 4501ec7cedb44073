/* The probe's ways between privilege levels; see probe.c. */
	.text
	.set	CODE, 0x08
	.set	DATA, 0x10
	.set	USER_DATA, 0x1b
	.set	USER_CODE, 0x23
	.set	TASK, 0x28

	.globl	btext
btext:
	cli
	cld
	movq	$stack_top, %rsp
	xorl	%ebp, %ebp
	call	probe_main
0:	hlt
	jmp	0b

/* void load_tables(const void *gdt_pointer, const void *idt_pointer): descriptor tables, segments, the task register */
	.globl	load_tables
load_tables:
	lgdt	(%rdi)
	lidt	(%rsi)
	movl	$DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	popq	%rdi
	pushq	$CODE
	pushq	%rdi
	movl	$TASK, %eax
	ltr	%ax
	lretq

/* void enter_user(void (*entry)(void), void *stack): runs ENTRY in ring 3 until it makes the system call that ends it */
	.globl	enter_user
enter_user:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, kernel_stack
	pushq	$USER_DATA
	pushq	%rsi
	pushq	$0x202				/* interrupts on */
	pushq	$USER_CODE
	pushq	%rdi
	iretq

/* SYSCALL comes here.  Call 0 is counted, any other ends the stay in ring 3. */
	.globl	on_system_call
on_system_call:
	swapgs
	movq	%rsp, user_stack_pointer
	movq	kernel_stack, %rsp
	testl	%eax, %eax
	jnz	1f
	pushq	%rcx				/* where to go on, and the flags there */
	pushq	%r11
	call	count_system_call
	popq	%r11
	popq	%rcx
	movq	user_stack_pointer, %rsp
	swapgs
	sysretq
1:	swapgs
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

	.macro	HANDLER name, function, pushed
	.globl	\name
\name:
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	cld
	call	\function
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%rcx
	popq	%rax
	.if	\pushed
	addq	$8, %rsp			/* the error code */
	.endif
	iretq
	.endm

	HANDLER	on_page_fault, page_fault, 1
	HANDLER	on_pit, pit_tick, 0
	HANDLER	on_apic, apic_tick, 0
	HANDLER	on_nothing, nothing, 0

/* An entry of 16 bytes for each exception: void surprise(uint64_t vector, const uint64_t *stack) */
	.globl	on_exceptions
	.balign	16
on_exceptions:
	.set	vector, 0
	.rept	32
	movl	$vector, %edi
	jmp	1f
	.balign	16
	.set	vector, vector + 1
	.endr
1:	movq	%rsp, %rsi
	call	surprise

	.section .dynamic, "aw"
	.quad	0, 0

	.bss
	.balign	16
	.skip	8192
stack_top:
kernel_stack:
	.skip	8
user_stack_pointer:
	.skip	8

	.section .note.GNU-stack, "", @progbits
