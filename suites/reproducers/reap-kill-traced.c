/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PROC_REAP_KILL signals the descendants of a reaper.  It takes for
 * those whom they trace, and not those whom others trace: a descendant
 * that is traced from outside escapes it, and a process that a
 * descendant traces, no descendant at all, is signalled.  Any user.
 *
 *	cc reap-kill-traced.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * PROC_REAP_KILL.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PROC_REAP_KILL
#define PROC_REAP_KILL 6
struct reaper_kill {
	uint32_t flags;
	int signal;
	uint32_t killed;
	pid_t pid_failed;
};
#endif

static void
idle(void)
{
	for (;;)
		pause();
}

/* Trace PID, who stops. */
static void
trace(pid_t pid)
{
	int status;

	if (ptrace(PT_ATTACH, pid, NULL, 0) < 0 ||
	    waitpid(pid, &status, WUNTRACED) != pid)
		err(2, "PT_ATTACH");
}

/* A reaper with one child.  The child traces STRANGER where there is
 * one; else we trace it.  Return how many the reaper has signalled. */
static int
signalled(pid_t stranger)
{
	struct reaper_kill wanted = {.signal = SIGURG};
	int ready[2], go[2], answer[2], found;
	pid_t reaper, child;
	char byte;

	if (pipe(ready) < 0 || pipe(go) < 0 || pipe(answer) < 0)
		err(2, "pipe");
	reaper = fork();
	if (reaper == 0) {
		procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL);
		if (fork() == 0) {
			child = getpid();
			if (stranger != 0)
				trace(stranger);
			write(ready[1], &child, sizeof(child));
			idle();
		}
		read(go[0], &byte, 1);
		found = procctl(P_PID, 0, PROC_REAP_KILL, &wanted) < 0 ?
		    -errno :
		    (int)wanted.killed;
		write(answer[1], &found, sizeof(found));
		idle();
	}
	close(ready[1]);
	if (read(ready[0], &child, sizeof(child)) != sizeof(child))
		errx(2, "the child has not begun");
	if (stranger == 0)
		trace(child);
	write(go[1], "x", 1);
	read(answer[0], &found, sizeof(found));
	kill(child, SIGKILL);
	kill(reaper, SIGKILL);
	return found;
}

int
main(void)
{
	int outside, inside;
	pid_t stranger = fork();

	if (stranger == 0)
		idle();
	outside = signalled(0);
	if (outside == -EINVAL) {
		kill(stranger, SIGKILL);
		printf("not applicable: there is no PROC_REAP_KILL\n");
		return 77;
	}
	inside = signalled(stranger);
	kill(stranger, SIGKILL);
	printf("a child that is traced from outside: %d signalled, "
	       "to be 1\n",
	    outside);
	printf("a child that traces a stranger: %d signalled, to be "
	       "1\n",
	    inside);
	if (outside != 1 || inside != 1) {
		printf("DEFECT: not the descendants alone\n");
		return 1;
	}
	printf("right: descendants alone are signalled\n");
	return 0;
}
