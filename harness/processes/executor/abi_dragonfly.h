/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The DragonFly x86_64 system call interface, as far as the executor itself needs it.
 *
 * Numbers: sys/kern/syscalls.master, unchanged for these since 2.x.  Convention: number in %rax, arguments in %rdi %rsi
 * %rdx %r10 %r8 %r9 and then on the stack above one unused word; carry set means that %rax is the errno.
 */
#ifndef ABI_DRAGONFLY_H
#define ABI_DRAGONFLY_H

enum {
	NR_EXIT = 1, NR_FORK = 2, NR_READ = 3, NR_WRITE = 4, NR_CLOSE = 6, NR_WAIT4 = 7, NR_UNLINK = 10,
	NR_CHMOD = 15, NR_GETPID = 20, NR_RECVFROM = 29, NR_ACCEPT = 30, NR_KILL = 37, NR_EXECVE = 59,
	NR_MUNMAP = 73, NR_FCNTL = 92, NR_SOCKET = 97, NR_CONNECT = 98, NR_BIND = 104, NR_LISTEN = 106, NR_SETSOCKOPT = 105,
	NR_SENDTO = 133, NR_SHUTDOWN = 134, NR_SETSID = 147, NR_GETRLIMIT = 194, NR_SETRLIMIT = 195, NR_MMAP = 197, NR_POLL = 209,
	NR_CLOCK_GETTIME = 232, NR_NANOSLEEP = 240, NR_INHERIT = 250 /* minherit */, NR_SIGPROCMASK = 340, NR_SIGACTION = 342,
	NR_EXTEXIT = 494, NR_LWP_CREATE = 495, NR_GETTID = 496,
};

enum {
	EINTR = 4, E2BIG = 7, ENOMEM = 12, EINVAL = 22, EAGAIN = 35, EALREADY = 37, EISCONN = 56, ECONNREFUSED = 61, ENOSYS = 78,
};

enum {
	SIG_HUP = 1, SIG_PIPE = 13, SIG_KILL = 9, SIG_SYS = 12, SIG_CONT = 19, SIGNALS = 64,
	MAP_PRIVATE_ANON = 0x0002 | 0x1000, NOT_INHERITED = 2 /* INHERIT_NONE */,
	F_DUPFD = 0, F_GETFD = 1, F_SETFD = 2, FD_CLOEXEC = 1,
	MSG_NOSIGNAL = 0x400, MSG_DONTWAIT = 0x80,
	CLOCK_MONOTONIC = 4, RLIMIT_NOFILE = 8,
	SIG_SETMASK = 3,
};

struct sockaddr_un {
	u8 length;
	u8 family;
	char path[104];
};
#define SOCKADDR_IN(number) { .family = { 16, 2 }, .port = { (u8)((number) >> 8), (u8)(number) } }
enum { SOL_SOCKET = 0xffff, SO_REUSEADDR = 4 };
#define SOCKADDR_UN(size) { .length = (u8)(size), .family = 1 }

/* sys/signal.h: struct sigaction.  The kernel supplies the trampoline that returns from a handler. */
struct kernel_sigaction {
	u64 handler;
	u32 flags;
	u32 mask[4];
};
#define SIGSET_ARGUMENT 0
#define SA_SIGINFO_BIT 0x40u

struct siginfo {
	i32 signo, error, code, pid, uid, status;
};

struct lwp_params {
	void (*function)(void *);
	void *argument;
	void *stack;
	i32 *tid1;
	i32 *tid2;
};

/* machdep.c: exec_setregs() passes the address of argc in %rdi. */
#define START_ARGUMENTS ""

#define BRANCH_FAILED_TEST "jc 8f\n"
#define BRANCH_FAILED_VALUE ""

static inline long raw_call(long number, const u64 *args, u64 *rdx_out, int *error)
{
	register u64 rdi __asm__("rdi") = args[0];
	register u64 rsi __asm__("rsi") = args[1];
	register u64 rdx __asm__("rdx") = args[2];
	register u64 r10 __asm__("r10") = args[3];
	register u64 r8 __asm__("r8") = args[4];
	register u64 r9 __asm__("r9") = args[5];
	long rax = number;
	u8 carry;

	/* Seventh and eighth argument go to 8(%rsp) and 16(%rsp), where a C call would have left them. */
	__asm__ volatile("pushq 56(%[args])\n"
			 "pushq 48(%[args])\n"
			 "pushq $0\n"
			 "syscall\n"
			 "setc %[carry]\n"
			 "add $24, %%rsp\n"
			 : "+a"(rax), "+r"(rdi), "+r"(rsi), "+r"(rdx), "+r"(r10), "+r"(r8), "+r"(r9), [carry] "=q"(carry)
			 : [args] "b"(args)
			 : "rcx", "r11", "memory", "cc");
	*rdx_out = rdx;
	*error = 0;
	if (carry) {
		*error = (int)rax;
		rax = -1;
	}
	return rax;
}

#endif
