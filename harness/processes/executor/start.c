/* SPDX-License-Identifier: BSD-2-Clause */
/* Entry, memory, and the ways a thread of control splits in two. */

#include "executor.h"

char socket_path[128];
char program_path[256];
i32 channel_limit = CHANNEL_BASE; /* one more than the highest descriptor ever used for a channel */

#if defined(ABI_DRAGONFLY)
/* What tells the kernel that this is a DragonFly program; it must lie within the file's first page. */
__asm__(".pushsection .note.ABI-tag, \"a\", @note\n"
	".balign 4\n"
	".long 10, 4, 1\n"
	".asciz \"DragonFly\"\n"
	".balign 4\n"
	".long 400000\n"
	".popsection\n");
#endif

NORETURN void start(u64 *stack) __asm__("start_in_c");

__asm__(".globl _start\n"
	"_start:\n"
	START_ARGUMENTS
	"xor %ebp, %ebp\n"
	"and $-16, %rsp\n"
	"call start_in_c\n"
	"ud2\n");

/*
 * i64 branch(number, argument, second, stack, entry, context, int *error)
 *
 * Makes a system call that returns twice.  The parent gets its value (-1 and *error upon failure); the child never
 * returns: it calls entry(context) on STACK.  A stack of its own is what allows vfork() and shared memory; after a plain
 * fork() the child may be given the stack it already has, from the top.
 */
__asm__(".globl branch\n"
	"branch:\n"
	"push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
	"mov %rcx, %r12\n"
	"mov %r8, %r13\n"
	"mov %r9, %r14\n"
	"mov 56(%rsp), %r15\n" /* error: the seventh argument, above six saved registers and the return address */
	"mov %rdi, %rax\n"
	"mov %rsi, %rdi\n"
	"mov %rdx, %rsi\n"
	"xor %edx, %edx\n xor %r10d, %r10d\n xor %r8d, %r8d\n xor %r9d, %r9d\n"
	"syscall\n"
	BRANCH_FAILED_TEST
	"test %eax, %eax\n"
	"jz 7f\n"
	"movl $0, (%r15)\n"
	"6:\n"
	"pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
	"ret\n"
	"7:\n" /* the child */
	"mov %r12, %rsp\n"
	"xor %ebp, %ebp\n"
	"mov %r14, %rdi\n"
	"call *%r13\n"
	"ud2\n"
	"8:\n" /* failure */
	BRANCH_FAILED_VALUE
	"movl %eax, (%r15)\n"
	"mov $-1, %rax\n"
	"jmp 6b\n");

/*
 * i64 fork_exit(number, argument, status, int *error)
 *
 * As branch(), but the child does nothing except _exit(status), without touching any memory, so that it may share ours.
 */
__asm__(".globl fork_exit\n"
	"fork_exit:\n"
	"push %rbx\n push %r12\n push %r13\n"
	"mov %rdx, %r12\n"
	"mov %rcx, %r13\n"
	"mov %rdi, %rax\n"
	"mov %rsi, %rdi\n"
	"xor %esi, %esi\n xor %edx, %edx\n xor %r10d, %r10d\n xor %r8d, %r8d\n xor %r9d, %r9d\n"
	"syscall\n"
	BRANCH_FAILED_TEST
	"test %eax, %eax\n"
	"jz 7f\n"
	"movl $0, (%r13)\n"
	"6:\n"
	"pop %r13\n pop %r12\n pop %rbx\n"
	"ret\n"
	"7:\n"
	"mov %r12, %rdi\n"
#if defined(ABI_LINUX)
	"mov $231, %eax\n"
#else
	"mov $1, %eax\n"
#endif
	"syscall\n"
	"ud2\n"
	"8:\n"
	BRANCH_FAILED_VALUE
	"movl %eax, (%r13)\n"
	"mov $-1, %rax\n"
	"jmp 6b\n");

/* void become(driven, entry): go on in entry(driven), on the stack of DRIVEN's region. */
__asm__(".globl become\n"
	"become:\n"
	"lea 0x40000(%rdi), %rsp\n"
	"xor %ebp, %ebp\n"
	"call *%rsi\n"
	"ud2\n");
_Static_assert(REGION == 0x40000, "become() knows the size of a region");

u64 length_of(const char *text)
{
	u64 length = 0;

	while (text[length])
		length++;
	return length;
}

/* Map a region at a multiple of its size.  NULL when there is no address space left. */
struct driven *new_region(void)
{
	u64 low = (u64)map_memory(2 * REGION, 1), region;

	if (low == 0)
		return NULL;
	region = (low + REGION - 1) & ~(REGION - 1);
	if (region > low)
		OS2(NR_MUNMAP, low, region - low);
	if (region < low + REGION)
		OS2(NR_MUNMAP, region + REGION, low + REGION - region);
	((struct driven *)region)->channel = -1;
	return (struct driven *)region;
}

/* Map memory, which children need not INHERIT.  NULL when there is none. */
void *map_memory(u64 length, int inherited)
{
	i64 mapped = OS6(NR_MMAP, 0, length, 3, MAP_PRIVATE_ANON, -1, 0);

	if (mapped <= 0 && mapped > -4096)
		return NULL;
	if (!inherited)
		OS3(NR_INHERIT, mapped, length, NOT_INHERITED);
	return (void *)mapped;
}

void unmap_memory(void *memory, u64 length)
{
	OS2(NR_MUNMAP, memory, length);
}

void free_region(struct driven *driven)
{
	OS2(NR_MUNMAP, driven, REGION);
}

void copy_text(char *to, const char *from, u64 room)
{
	u64 length = length_of(from);

	if (length >= room)
		die(2);
	memcpy(to, from, length + 1);
}

static u32 number_in(const char *text)
{
	u32 value = 0;

	while (*text >= '0' && *text <= '9')
		value = value * 10 + (u32)(*text++ - '0');
	return value;
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* The program runs again in a process that was already driven: tell the host, which waits for the answer, and go on. */
static NORETURN void attach(struct driven *driven, char **argv)
{
	struct answer answer = { 0 };
	u32 sequence = number_in(argv[5]);

	driven->channel = (i32)number_in(argv[3]);
	driven->id = number_in(argv[4]);
	channel_limit = driven->channel + 1;
	OS3(NR_FCNTL, driven->channel, F_SETFD, FD_CLOEXEC);
	watch_nosys();
	answer.before = answer.after = now();
	send_answer(driven, sequence, &answer, NULL, 0);
	become(driven, serve);
}

/*
 *	executor hub SOCKET [--listen PORT TOKEN]
 *	executor attach SOCKET DESCRIPTOR ID SEQUENCE
 */
NORETURN void start(u64 *stack)
{
	u64 argc = stack[0];
	char **argv = (char **)(stack + 1);
	struct driven *driven = new_region();

	if (driven == NULL || argc < 3)
		die(2);
	copy_text(program_path, argv[0], sizeof(program_path));
	copy_text(socket_path, argv[2], sizeof(socket_path));
	if (same(argv[1], "attach") && argc == 6)
		attach(driven, argv);
	if (same(argv[1], "hub") && argc == 6 && same(argv[3], "--listen")) {
		listen_for_host(number_in(argv[4]), argv[5]);
		become(driven, hub);
	}
	if (same(argv[1], "hub") && argc == 3)
		become(driven, hub);
	die(2);
}
