/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A reaper that ignores SIGCHLD is left with zombies: exit1() gives the
 * children of whoever ignores it to his reaper, and that is himself.
 * Any user.
 *
 *	cc reaper-ignores-sigchld.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * reapers.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	int status;
	pid_t child, found;

	if (procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL) < 0) {
		printf("not applicable: there are no reapers\n");
		return 77;
	}

	/* We ignore SIGCHLD: our children are to leave no zombies. */
	signal(SIGCHLD, SIG_IGN);
	child = fork();
	if (child == 0)
		_exit(0);

	/* wait sleeps until there are no children any more: ECHILD. */
	found = waitpid(child, &status, 0);
	if (found == child) {
		printf("DEFECT: a child has become a zombie, and is "
		       "waited for\n");
		return 1;
	}
	if (found != -1 || errno != ECHILD)
		err(2, "waitpid");
	printf("right: no zombie was left\n");
	return 0;
}
