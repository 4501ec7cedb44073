/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PROC_REAP_KILL signals descendants that the reaper may not signal: it
 * asks whether the reaper may signal itself.  An ordinary user kills
 * programs of root's, set-user-id ones among them, that descend from a
 * reaper of his.
 *
 *	cc reap-kill-other-users.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>
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

int
main(void)
{
	struct reaper_kill wanted = {.signal = SIGTERM};
	int end[2], status;
	pid_t child;
	char byte;

	if (getuid() != 0) {
		printf("not applicable: be root\n");
		return 77;
	}

	/* We are a reaper, and have a child that is root's. */
	if (pipe(end) < 0)
		err(2, "pipe");
	procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL);
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* We become an ordinary user, who may not signal the child. */
	if (setuid(65534) < 0 || kill(child, 0) == 0)
		errx(2, "no ordinary user after setuid()");

	/* PROC_REAP_KILL is to leave it alone, and to say so. */
	if (procctl(P_PID, 0, PROC_REAP_KILL, &wanted) < 0) {
		printf("not applicable: there is no PROC_REAP_KILL\n");
		return 77;
	}
	if (wanted.killed != 0) {
		waitpid(child, &status, 0);
		printf("DEFECT: an ordinary user has killed a process "
		       "of root's\n");
		return 1;
	}
	printf("right: the process of root's is alive\n");
	return 0;
}
