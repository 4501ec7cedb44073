/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starts a program and says how it ended, which neither a shell nor SSH does exactly: with which errno the kernel
 * refused to execute it, by which signal it died.
 *
 *	launcher TOKEN SESSION CREDENTIALS PATH ARGV...
 *
 * SESSION is `own` for a session of its own, whose first process group is killed when the program has ended, or `-`.
 * CREDENTIALS are `UID:GID:GROUP,GROUP...`, or `-` for the caller's.  The environment is the caller's.  The last line
 * of the output begins with a zero byte and TOKEN, so that no program's own can be taken for it:
 *
 *	exit STATUS		signal NUMBER		refused ERRNO (of execve)	user ERRNO (of setgroups, setgid, setuid)
 */
#include "executor.h"

#if defined(ABI_DRAGONFLY)
__asm__(".pushsection .note.ABI-tag, \"a\", @note\n"
	".balign 4\n"
	".long 10, 4, 1\n"
	".asciz \"DragonFly\"\n"
	".balign 4\n"
	".long 400000\n"
	".popsection\n");
enum { NR_SETUID = 23, NR_SETGROUPS = 80, NR_SETGID = 181 };
#else
enum { NR_SETUID = 105, NR_SETGROUPS = 116, NR_SETGID = 106 };
#endif

enum { GROUPS = 16, OUTPUT = 1, TOKEN = 64 };

NORETURN void start(u64 *stack) __asm__("start_in_c");

__asm__(".globl _start\n"
	"_start:\n"
	START_ARGUMENTS
	"xor %ebp, %ebp\n"
	"and $-16, %rsp\n"
	"call start_in_c\n"
	"ud2\n");

static const char *token;

static char *append(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	return to;
}

/* One write(), so that nothing that still runs gets in between. */
static void tell(const char *what, u32 number)
{
	char line[256], digits[12], *end = line, *digit = digits + sizeof(digits) - 1;

	*end++ = '\n';
	*end++ = 0;
	end = append(append(append(end, token), " "), what);
	*end++ = ' ';
	*digit = 0;
	do
		*--digit = (char)('0' + number % 10);
	while (number /= 10);
	end = append(end, digit);
	*end++ = '\n';
	OS3(NR_WRITE, OUTPUT, line, end - line);
}

static u32 number_at(const char **text)
{
	u32 value = 0;

	while (**text >= '0' && **text <= '9')
		value = value * 10 + (u32)(*(*text)++ - '0');
	if (**text)
		(*text)++;
	return value;
}

static i64 become_user(const char *credentials)
{
	u32 user = number_at(&credentials), group = number_at(&credentials), groups[GROUPS], count = 0;
	i64 error;

	while (*credentials && count < GROUPS)
		groups[count++] = number_at(&credentials);
	if ((error = OS2(NR_SETGROUPS, count, groups)) != 0)
		return error;
	if ((error = OS1(NR_SETGID, group)) != 0)
		return error;
	return OS1(NR_SETUID, user);
}

NORETURN void start(u64 *stack)
{
	u64 argc = stack[0];
	char **argv = (char **)(stack + 1), **environment = argv + argc + 1;
	i32 status = 0;
	i64 child, error;
	u32 length = 0;
	int own;

	if (argc < 6)
		die(2);
	token = argv[1];
	while (token[length])
		if (++length > TOKEN)
			die(2);
	own = argv[2][0] == 'o';
	child = OS1(NR_FORK, 0);
	if (child == 0) {
		if (own)
			OS1(NR_SETSID, 0);
		if (argv[3][0] != '-' && (error = become_user(argv[3])) != 0) {
			tell("user", (u32)-error);
			die(127);
		}
		error = OS3(NR_EXECVE, argv[4], argv + 5, environment);
		tell("refused", (u32)-error);
		die(127);
	}
	if (child < 0) {
		tell("refused", (u32)-child);
		die(127);
	}
	while (OS4(NR_WAIT4, child, &status, 0, 0) == -EINTR)
		;
	if (own)
		OS2(NR_KILL, -child, SIG_KILL);
	if ((status & 0x7f) == 0)
		tell("exit", (u32)(status >> 8) & 0xff);
	else
		tell("signal", (u32)status & 0x7f);
	die(0);
}
