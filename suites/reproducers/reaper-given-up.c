/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Children of a process that was a reaper, and is none any more, may
 * signal nobody outside of what it was the reaper of, their parent
 * included.  Any user.
 *
 *	cc reaper-given-up.c && ./a.out
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
	pid_t reaper = getpid(), child;
	int go[2], status;
	char byte;

	if (procctl(P_PID, reaper, PROC_REAP_ACQUIRE, NULL) < 0) {
		printf("not applicable: there are no reapers\n");
		return 77;
	}

	/* A child is born to the reaper, which then gives that up. */
	if (pipe(go) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		read(go[0], &byte, 1);
		_exit(kill(reaper, 0) == 0 ? 0 : errno);
	}
	if (procctl(P_PID, reaper, PROC_REAP_RELEASE, NULL) < 0)
		err(2, "PROC_REAP_RELEASE");
	write(go[1], "x", 1);

	/* The child may signal us, who are of the same user. */
	if (waitpid(child, &status, 0) != child)
		err(2, "waitpid");
	if (WEXITSTATUS(status) != 0) {
		printf("DEFECT: a child may not signal its parent, "
		       "errno %d\n",
		    WEXITSTATUS(status));
		return 1;
	}
	printf("right: a child may signal its parent\n");
	return 0;
}
