/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * syscap_set() with __SYSCAP_INPARENT restricts the parent.  Of a
 * process that is traced it restricts the debugger, and the parent goes
 * free.  Any user.
 *
 *	cc syscap-inparent-debugger.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * syscap_set().
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

/* System calls since October 2023. */
enum { SYSCAP_GET = 455, SYSCAP_SET = 456 };
enum { NOEXEC = 0x03, INPARENT = 0x10000, SELF = 1 };

static void
no_such_call(int signal)
{
	(void)signal;
	_exit(77);
}

/* Whether we may exec no more. */
static long
restricted(void)
{
	return syscall(SYSCAP_GET, (long)NOEXEC, NULL, 0L) & SELF;
}

int
main(void)
{
	int born[2], go[2], done[2], ask[2], answer[2], status;
	pid_t parent, child;
	long of_parent = 0;
	char byte;

	signal(SIGSYS, no_such_call);
	if (restricted() != 0 || pipe(born) < 0 || pipe(go) < 0 ||
	    pipe(done) < 0 || pipe(ask) < 0 || pipe(answer) < 0)
		err(2, "pipe");

	/* A parent has a child, which restricts its parent when it is
	 * told to. */
	parent = fork();
	if (parent == 0) {
		child = fork();
		if (child == 0) {
			child = getpid();
			write(born[1], &child, sizeof(child));
			read(go[0], &byte, 1);
			syscall(SYSCAP_SET, (long)(NOEXEC | INPARENT),
			    (long)SELF, NULL, 0L);
			write(done[1], "x", 1);
			for (;;)
				pause();
		}
		read(ask[0], &byte, 1);
		of_parent = restricted();
		write(answer[1], &of_parent, sizeof(of_parent));
		for (;;)
			pause();
	}
	if (read(born[0], &child, sizeof(child)) != sizeof(child))
		err(2, "read");

	/* We trace the child, and let it go on. */
	if (ptrace(PT_ATTACH, child, NULL, 0) < 0 ||
	    waitpid(child, &status, WUNTRACED) != child ||
	    ptrace(PT_CONTINUE, child, (caddr_t)1, 0) < 0)
		err(2, "PT_ATTACH");
	write(go[1], "x", 1);
	read(done[0], &byte, 1);

	/* Who is restricted now? */
	write(ask[1], "x", 1);
	read(answer[0], &of_parent, sizeof(of_parent));
	kill(child, SIGKILL);
	kill(parent, SIGKILL);
	if (restricted() != 0 || of_parent == 0) {
		printf("DEFECT: the debugger is %srestricted, and the "
		       "parent is %srestricted\n",
		    restricted() ? "" : "not ",
		    of_parent ? "" : "not ");
		return 1;
	}
	printf("right: the parent is restricted, the debugger is "
	       "not\n");
	return 0;
}
