/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Linux x86_64 system call interface, as far as the executor itself needs it.
 *
 * Numbers and layouts come from the kernel's UAPI headers (asm/unistd_64.h, asm-generic/siginfo.h, linux/un.h).
 */
#ifndef ABI_LINUX_H
#define ABI_LINUX_H

enum {
	NR_READ = 0, NR_WRITE = 1, NR_CLOSE = 3, NR_POLL = 7, NR_MMAP = 9, NR_MUNMAP = 11, NR_NANOSLEEP = 35,
	NR_SOCKET = 41, NR_CONNECT = 42, NR_ACCEPT = 43, NR_SENDTO = 44, NR_RECVFROM = 45, NR_BIND = 49,
	NR_LISTEN = 50, NR_SHUTDOWN = 48, NR_FORK = 57, NR_EXECVE = 59, NR_WAIT4 = 61, NR_KILL = 62, NR_FCNTL = 72, NR_UNLINK = 87,
	NR_CHMOD = 90, NR_GETRLIMIT = 97, NR_SETSID = 112, NR_SETRLIMIT = 160, NR_CLOCK_GETTIME = 228,
	NR_EXIT = 231, /* exit_group: the whole process */
	NR_GETPID = 39, NR_GETTID = 186, NR_SIGACTION = 13, NR_SIGPROCMASK = 14,
	NR_CLONE = 56, NR_INHERIT = 28 /* madvise */, NR_EXIT_THREAD = 60,
};

enum {
	EINTR = 4, EAGAIN = 11, EALREADY = 114, EISCONN = 106, ECONNREFUSED = 111, ENOSYS = 38, EINVAL = 22, E2BIG = 7, ENOMEM = 12,
};

enum {
	SIG_HUP = 1, SIG_PIPE = 13, SIG_KILL = 9, SIG_CONT = 18, SIG_SYS = 31, SIGNALS = 64,
	MAP_PRIVATE_ANON = 0x02 | 0x20 | 0x4000 /* MAP_NORESERVE */, NOT_INHERITED = 10 /* MADV_DONTFORK */,
	F_DUPFD = 0, F_GETFD = 1, F_SETFD = 2, FD_CLOEXEC = 1,
	MSG_NOSIGNAL = 0x4000, MSG_DONTWAIT = 0x40,
	CLOCK_MONOTONIC = 1, RLIMIT_NOFILE = 7,
	SIG_SETMASK = 2,
};

struct sockaddr_un {
	u16 family;
	char path[108];
};
#define SOCKADDR_IN(number) { .family = { 2, 0 }, .port = { (u8)((number) >> 8), (u8)(number) } }
enum { SOL_SOCKET = 1, SO_REUSEADDR = 2, NR_SETSOCKOPT = 54 };
#define SOCKADDR_UN(length) { .family = 1 }

/* What the kernel calls struct sigaction; it returns from handlers only through a restorer. */
struct kernel_sigaction {
	u64 handler;
	u64 flags;
	u64 restorer;
	u64 mask;
};
#define SIGSET_ARGUMENT 8 /* rt_sigaction's fourth argument */
#define SA_RESTORER 0x04000000u
#define SA_SIGINFO_BIT 4u

struct siginfo {
	i32 signo, error, code, pad, pid, uid, status;
};

/* %rdi holds nothing at entry: argc is where %rsp points. */
#define START_ARGUMENTS "mov %rsp, %rdi\n"

/* Errors are negative in %rax. */
#define BRANCH_FAILED_TEST "cmp $-4096, %rax\n ja 8f\n"
#define BRANCH_FAILED_VALUE "neg %rax\n"

static inline long raw_call(long number, const u64 *args, u64 *rdx_out, int *error)
{
	register u64 rdi __asm__("rdi") = args[0];
	register u64 rsi __asm__("rsi") = args[1];
	register u64 rdx __asm__("rdx") = args[2];
	register u64 r10 __asm__("r10") = args[3];
	register u64 r8 __asm__("r8") = args[4];
	register u64 r9 __asm__("r9") = args[5];
	long rax = number;

	__asm__ volatile("syscall"
			 : "+a"(rax), "+r"(rdi), "+r"(rsi), "+r"(rdx), "+r"(r10), "+r"(r8), "+r"(r9)
			 :
			 : "rcx", "r11", "memory", "cc");
	*rdx_out = rdx;
	*error = 0;
	if (rax < 0 && rax > -4096) {
		*error = (int)-rax;
		rax = -1;
	}
	return rax;
}

#endif
