/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who only looks at a zombie (wait6() with WNOWAIT) reserves it as who
 * reaps it would: a thread that waits for it meanwhile is told ECHILD,
 * though the zombie is there and stays there.  Any user; it takes
 * several CPUs.
 *
 *	cc zombie-looked-at.c && ./a.out
 *
 * Exit status: 0 nothing has happened, which on a machine with one CPU
 * says nothing, 1 the kernel has the defect, 77 it has no wait6().
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/lwp.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 3000, READERS = 2 };

static char stack[65536];
static volatile pid_t looked_at;

static void
no_such_call(int signal)
{
	(void)signal;
	_exit(77);
}

/* A thread that looks at the present child all the time. */
static void
look(void *nothing)
{
	int status;

	(void)nothing;
	for (;;)
		wait6(P_PID, looked_at, &status,
		    WEXITED | WNOHANG | WNOWAIT, NULL, NULL);
}

/* Ask for all processes, over and over, which holds each a moment. */
static void
read_all(void)
{
	int name[3] = {CTL_KERN, KERN_PROC, KERN_PROC_ALL};
	static char room[1 << 20];
	size_t size;

	for (;;) {
		size = sizeof(room);
		sysctl(name, 3, room, &size, NULL, 0);
	}
}

int
main(void)
{
	struct lwp_params thread = {look, NULL,
	    stack + sizeof(stack) - 8, NULL, NULL};
	pid_t readers[READERS], child, found;
	int number, each, status;

	signal(SIGSYS, no_such_call);
	for (each = 0; each < READERS; each++) {
		readers[each] = fork();
		if (readers[each] == 0)
			read_all();
	}
	if (lwp_create(&thread) < 0)
		err(2, "lwp_create");

	/* Children exit, and we, who alone reap them, wait for each. */
	for (number = 0; number < CHILDREN; number++) {
		child = fork();
		if (child == 0)
			_exit(0);
		looked_at = child;
		found = waitpid(child, &status, 0);
		if (found != child)
			break;
	}
	each = errno;
	for (number = 0; number < READERS; number++)
		kill(readers[number], SIGKILL);
	if (found != child && each == ECHILD) {
		printf("DEFECT: ECHILD for a child that nobody has "
		       "reaped\n");
		return 1;
	}
	if (found != child)
		errx(2, "waitpid: errno %d", each);
	printf("right: each of %d children could be waited for\n",
	    CHILDREN);
	return 0;
}
