/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a C program of one file needs to run on DragonFly without a libc: its start, raw system calls by the names of
 * section 2 of the manual, and a little of sections 3.  Nothing is remembered, and no call is wrapped in others: what a
 * program written for the system's own libc asks the kernel for, the kernel is asked for.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/event.h>
#include <sys/ioctl.h>
#include <sys/jail.h>
#include <sys/lwp.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/procctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/rtprio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <sys/time.h>
#include <sys/usched.h>
#include <sys/wait.h>
#include <unistd.h>

__asm__(".pushsection .note.ABI-tag, \"a\", @note\n"
	".balign 4\n"
	".long 10, 4, 1\n"
	".asciz \"DragonFly\"\n"
	".balign 4\n"
	".long 400000\n"
	".popsection\n");

/* The kernel leaves the address of argc in %rdi (exec_setregs()). */
__asm__(".globl _start\n"
	"_start:\n"
	"xor %ebp, %ebp\n"
	"and $-16, %rsp\n"
	"call start_in_c\n"
	"ud2\n");

int errno;

int main(int argc, char **argv, char **environment);
__attribute__((noreturn)) void start(long *stack) __asm__("start_in_c");

void start(long *stack)
{
	char **argv = (char **)(stack + 1);

	exit(main((int)stack[0], argv, argv + stack[0] + 1));
}

/* ---- The kernel's interface: number in %rax; carry set means that %rax is the errno ----------------------------- */

struct answer {
	long value, second;
};

static struct answer ask(long number, long a, long b, long c, long d, long e, long f, long g)
{
	register long rdi __asm__("rdi") = a;
	register long rsi __asm__("rsi") = b;
	register long rdx __asm__("rdx") = c;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	unsigned char failed;

	/* A seventh argument lies where a call of a function would have left it: above the return address. */
	__asm__ volatile("push %[seventh]\n"
			 "push $0\n"
			 "syscall\n"
			 "setc %[failed]\n"
			 "lea 16(%%rsp), %%rsp\n"
			 : "+a"(number), "+r"(rdi), "+r"(rsi), "+r"(rdx), "+r"(r10), "+r"(r8), "+r"(r9), [failed] "=&b"(failed)
			 : [seventh] "r"(g)
			 : "rcx", "r11", "memory", "cc");
	if (failed) {
		errno = (int)number;
		return (struct answer){ -1, 0 };
	}
	return (struct answer){ number, rdx };
}

#define ASK(n, a, b, c, d, e, f) ask(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f), 0).value
#define CALL(type, name, n, parameters, a, b, c, d, e, f) type name parameters { return (type)ASK(n, a, b, c, d, e, f); }
#define CALL0(type, name, n) CALL(type, name, n, (void), 0, 0, 0, 0, 0, 0)
#define CALL1(type, name, n, A) CALL(type, name, n, (A a), a, 0, 0, 0, 0, 0)
#define CALL2(type, name, n, A, B) CALL(type, name, n, (A a, B b), a, b, 0, 0, 0, 0)
#define CALL3(type, name, n, A, B, C) CALL(type, name, n, (A a, B b, C c), a, b, c, 0, 0, 0)
#define CALL4(type, name, n, A, B, C, D) CALL(type, name, n, (A a, B b, C c, D d), a, b, c, d, 0, 0)
#define CALL6(type, name, n, A, B, C, D, E, F) CALL(type, name, n, (A a, B b, C c, D d, E e, F f), a, b, c, d, e, f)

CALL0(pid_t, fork, 2)
CALL3(ssize_t, read, 3, int, void *, size_t)
CALL3(ssize_t, write, 4, int, const void *, size_t)
CALL1(int, close, 6, int)
CALL4(pid_t, wait4, 7, pid_t, int *, int, struct rusage *)
CALL2(int, link, 9, const char *, const char *)
CALL1(int, unlink, 10, const char *)
CALL1(int, chdir, 12, const char *)
CALL0(pid_t, getpid, 20)
CALL4(int, mount, 21, const char *, const char *, int, void *)
CALL2(int, unmount, 22, const char *, int)
CALL1(int, setuid, 23, uid_t)
CALL0(uid_t, getuid, 24)
CALL0(uid_t, geteuid, 25)
CALL4(int, ptrace, 26, int, pid_t, caddr_t, int)
CALL2(int, kill, 37, pid_t, int)
CALL0(pid_t, getppid, 39)
CALL0(gid_t, getegid, 43)
CALL1(int, setlogin, 50, const char *)
CALL3(int, execve, 59, const char *, char *const *, char *const *)
CALL2(int, sigaltstack, 53, const stack_t *, stack_t *)
CALL2(int, munmap, 73, void *, size_t)
CALL2(int, getgroups, 79, int, gid_t *)
CALL2(int, setgroups, 80, int, const gid_t *)
CALL0(pid_t, getpgrp, 81)
CALL2(int, setpgid, 82, pid_t, pid_t)
CALL2(int, dup2, 90, int, int)
CALL3(int, socket, 97, int, int, int)
CALL2(int, getrusage, 117, int, struct rusage *)
CALL2(int, setreuid, 126, uid_t, uid_t)
CALL2(int, rename, 128, const char *, const char *)
CALL2(int, mkdir, 136, const char *, mode_t)
CALL1(int, rmdir, 137, const char *)
CALL0(pid_t, setsid, 147)
CALL3(int, rtprio, 166, int, pid_t, struct rtprio *)
CALL1(int, setgid, 181, gid_t)
CALL6(int, sysctl, 202, const int *, u_int, void *, size_t *, const void *, size_t)
CALL1(pid_t, getpgid, 207, pid_t)
CALL2(int, clock_gettime, 232, int, struct timespec *)
CALL2(int, nanosleep, 240, const struct timespec *, struct timespec *)
CALL1(pid_t, rfork, 251, int)
CALL1(pid_t, getsid, 310, pid_t)
CALL3(int, setresuid, 311, uid_t, uid_t, uid_t)
CALL1(int, jail, 338, struct jail *)
CALL1(int, jail_attach, 471, int)
CALL3(int, sigprocmask, 340, int, const sigset_t *, sigset_t *)
CALL1(int, sigsuspend, 341, const sigset_t *)
CALL3(int, sigaction, 342, int, const struct sigaction *, struct sigaction *)
CALL1(int, sigpending, 343, sigset_t *)
CALL3(int, sigtimedwait, 345, const sigset_t *, siginfo_t *, const struct timespec *)
CALL0(int, kqueue, 362)
CALL6(int, kevent, 363, int, const struct kevent *, int, struct kevent *, int, const struct timespec *)
CALL4(int, usched_set, 481, pid_t, int, void *, int)
CALL1(int, lwp_create, 495, struct lwp_params *)
CALL0(lwpid_t, lwp_gettid, 496)
CALL3(int, lwp_kill, 497, pid_t, lwpid_t, int)
CALL4(int, lwp_rtprio, 498, int, pid_t, lwpid_t, struct rtprio *)
CALL3(int, ioprio_set, 520, int, int, int)
CALL2(int, ioprio_get, 521, int, int)
CALL4(int, procctl, 536, idtype_t, id_t, int, void *)
CALL6(pid_t, wait6, 548, idtype_t, id_t, int *, int, struct __wrusage *, siginfo_t *)
CALL3(int, lwp_getname, 549, lwpid_t, char *, size_t)

/* The child runs on its parent's stack, so that the return address must not be there when the parent returns. */
__asm__(".globl vfork\n"
	"vfork:\n"
	"pop %rsi\n"
	"mov $66, %eax\n"
	"syscall\n"
	"jc 1f\n"
	"jmp *%rsi\n"
	"1: mov %eax, errno\n"
	"mov $-1, %eax\n"
	"jmp *%rsi\n");

void _exit(int status)
{
	for (;;)
		(void)ASK(1, status, 0, 0, 0, 0, 0);
}

int pipe(int fds[2])
{
	struct answer made = ask(42, 0, 0, 0, 0, 0, 0, 0);

	if (made.value < 0)
		return -1;
	fds[0] = (int)made.value;
	fds[1] = (int)made.second;
	return 0;
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	return (void *)ask(197, (long)address, (long)size, protection, flags, fd, 0, offset).value;
}

/* Calls with ... have their arguments in the registers of ordinary ones. */
#define REST(list, after, number)                        \
	long list[number];                               \
	__builtin_va_list rest;                          \
	__builtin_va_start(rest, after);                 \
	for (int each = 0; each < (number); each++)      \
		list[each] = __builtin_va_arg(rest, long); \
	__builtin_va_end(rest)

int open(const char *path, int flags, ...)
{
	REST(given, flags, 1);
	return (int)ASK(5, path, flags, given[0], 0, 0, 0);
}

int fcntl(int fd, int command, ...)
{
	REST(given, command, 1);
	return (int)ASK(92, fd, command, given[0], 0, 0, 0);
}

int ioctl(int fd, unsigned long request, ...)
{
	REST(given, request, 1);
	return (int)ASK(54, fd, request, given[0], 0, 0, 0);
}

long syscall(int number, ...)
{
	REST(given, number, 6);
	return ASK(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

/* ---- What section 3 makes of it --------------------------------------------------------------------------------- */

pid_t wait(int *status)
{
	return wait4(-1, status, 0, NULL);
}

pid_t waitpid(pid_t pid, int *status, int options)
{
	return wait4(pid, status, options, NULL);
}

int killpg(pid_t group, int signal)
{
	return kill(-group, signal);
}

int execl(const char *path, const char *argument, ...)
{
	char *argv[16] = { (char *)argument }, *none = NULL;
	__builtin_va_list rest;
	int count = 1;

	__builtin_va_start(rest, argument);
	while (count < 15 && (argv[count] = __builtin_va_arg(rest, char *)) != NULL)
		count++;
	__builtin_va_end(rest);
	return execve(path, argv, &none);
}

void exit(int status)
{
	_exit(status);
}

void (*signal(int signal, void (*handler)(int)))(int)
{
	struct sigaction wanted = { .sa_handler = handler, .sa_flags = SA_RESTART }, old;

	return sigaction(signal, &wanted, &old) < 0 ? (void (*)(int))-1 : old.sa_handler;
}

int sigemptyset(sigset_t *set)
{
	memset(set, 0, sizeof(*set));
	return 0;
}

int sigfillset(sigset_t *set)
{
	memset(set, 0xff, sizeof(*set));
	return 0;
}

int sigaddset(sigset_t *set, int signal)
{
	set->bits[(signal - 1) / 32] |= 1u << (signal - 1) % 32;
	return 0;
}

int sigismember(const sigset_t *set, int signal)
{
	return set->bits[(signal - 1) / 32] >> (signal - 1) % 32 & 1;
}

unsigned int alarm(unsigned int seconds)
{
	struct itimerval wanted = { .it_value = { .tv_sec = seconds } }, old = { 0 };

	(void)ASK(83, 0, &wanted, &old, 0, 0, 0); /* setitimer(ITIMER_REAL) */
	return (unsigned int)old.it_value.tv_sec;
}

int usleep(unsigned int microseconds)
{
	struct timespec time = { .tv_sec = microseconds / 1000000, .tv_nsec = microseconds % 1000000 * 1000l };

	return nanosleep(&time, NULL);
}

int pause(void)
{
	sigset_t mask;

	sigprocmask(SIG_BLOCK, NULL, &mask);
	return sigsuspend(&mask);
}

int sysctlbyname(const char *name, void *old, size_t *old_size, const void *new, size_t new_size)
{
	int by_name[2] = { 0, 3 }, found[24];
	size_t size = sizeof(found);

	if (sysctl(by_name, 2, found, &size, name, strlen(name)) < 0)
		return -1;
	return sysctl(found, (u_int)(size / sizeof(int)), old, old_size, new, new_size);
}

int posix_openpt(int flags)
{
	return open("/dev/ptmx", flags);
}

int grantpt(int master)
{
	(void)master;
	return 0;
}

int unlockpt(int master)
{
	(void)master;
	return 0;
}

/* The master's device is ptm/N, and the slave of that is pts/N. */
char *ptsname(int master)
{
	static char name[64];
	char device[48] = "";
	const char *number = device;
	struct {
		char *name;
		unsigned int size;
	} wanted = { device, sizeof(device) };

	if (ioctl(master, 0x80106678ul /* FIODNAME */, &wanted) < 0)
		return NULL;
	for (const char *sign = device; *sign; sign++)
		if (*sign == '/')
			number = sign + 1;
	strcpy(name, "/dev/pts/");
	strcat(name, number);
	return name;
}

/* ---- Strings ---------------------------------------------------------------------------------------------------- */

void *memcpy(void *to, const void *from, size_t size)
{
	void *start_of = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return start_of;
}

void *memset(void *to, int value, size_t size)
{
	void *start_of = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return start_of;
}

int memcmp(const void *left, const void *right, size_t size)
{
	const unsigned char *one = left, *other = right;

	for (; size > 0; size--, one++, other++)
		if (*one != *other)
			return *one - *other;
	return 0;
}

size_t strlen(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

int strncmp(const char *left, const char *right, size_t size)
{
	for (; size > 0; size--, left++, right++)
		if (*left != *right || !*left)
			return (unsigned char)*left - (unsigned char)*right;
	return 0;
}

int strcmp(const char *left, const char *right)
{
	return strncmp(left, right, (size_t)-1);
}

char *strcpy(char *to, const char *from)
{
	return memcpy(to, from, strlen(from) + 1);
}

char *strcat(char *to, const char *from)
{
	strcpy(to + strlen(to), from);
	return to;
}

char *strstr(const char *text, const char *wanted)
{
	for (; *text; text++)
		if (strncmp(text, wanted, strlen(wanted)) == 0)
			return (char *)text;
	return NULL;
}

/* ---- Output: %d %u %x %c %s, with l; nothing is buffered -------------------------------------------------------- */

static size_t put(char *to, size_t size, size_t at, char sign)
{
	if (at + 1 < size)
		to[at] = sign;
	return at + 1;
}

static size_t put_number(char *to, size_t size, size_t at, unsigned long value, unsigned int base)
{
	char digits[24];
	int count = 0;

	do
		digits[count++] = "0123456789abcdef"[value % base];
	while (value /= base);
	while (count > 0)
		at = put(to, size, at, digits[--count]);
	return at;
}

static size_t format_into(char *to, size_t size, const char *format, __builtin_va_list rest)
{
	size_t at = 0;

	for (; *format; format++) {
		int wide = 0;

		if (*format != '%') {
			at = put(to, size, at, *format);
			continue;
		}
		for (format++; *format == 'l'; format++)
			wide = 1;
		if (*format == 's') {
			for (const char *text = __builtin_va_arg(rest, const char *); *text; text++)
				at = put(to, size, at, *text);
		} else if (*format == 'd') {
			long value = wide ? __builtin_va_arg(rest, long) : __builtin_va_arg(rest, int);

			if (value < 0)
				at = put(to, size, at, '-');
			at = put_number(to, size, at, value < 0 ? -(unsigned long)value : (unsigned long)value, 10);
		} else if (*format == 'u' || *format == 'x') {
			unsigned long value = wide ? __builtin_va_arg(rest, unsigned long) : __builtin_va_arg(rest, unsigned int);

			at = put_number(to, size, at, value, *format == 'x' ? 16 : 10);
		} else if (*format == 'c') {
			at = put(to, size, at, (char)__builtin_va_arg(rest, int));
		} else {
			at = put(to, size, at, *format);
		}
	}
	if (size > 0)
		to[at < size ? at : size - 1] = 0;
	return at;
}

int snprintf(char *to, size_t size, const char *format, ...)
{
	__builtin_va_list rest;
	size_t length;

	__builtin_va_start(rest, format);
	length = format_into(to, size, format, rest);
	__builtin_va_end(rest);
	return (int)length;
}

static char line[4096];

static void say(int fd, const char *format, __builtin_va_list rest)
{
	size_t length = format_into(line, sizeof(line), format, rest);

	write(fd, line, length < sizeof(line) ? length : sizeof(line) - 1);
}

FILE *stdout;

int fflush(FILE *stream)
{
	(void)stream;
	return 0;
}

int printf(const char *format, ...)
{
	__builtin_va_list rest;

	__builtin_va_start(rest, format);
	say(1, format, rest);
	__builtin_va_end(rest);
	return 0;
}

void errx(int status, const char *format, ...)
{
	__builtin_va_list rest;

	__builtin_va_start(rest, format);
	say(2, format, rest);
	__builtin_va_end(rest);
	write(2, "\n", 1);
	exit(status);
}

void err(int status, const char *format, ...)
{
	int error = errno;
	char number[32];
	__builtin_va_list rest;

	__builtin_va_start(rest, format);
	say(2, format, rest);
	__builtin_va_end(rest);
	write(2, number, (size_t)snprintf(number, sizeof(number), ": errno %d\n", error));
	exit(status);
}
