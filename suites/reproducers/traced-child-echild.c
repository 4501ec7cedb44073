/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * While somebody else traces a child, its parent's wait fails with
 * ECHILD, as if there were no child: a shell forgets its job when a
 * debugger attaches to it.  Any user.
 *
 *	cc traced-child-echild.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	int traced[2], end[2], status, result;
	pid_t child, found;
	char byte;

	if (pipe(traced) < 0 || pipe(end) < 0)
		err(2, "pipe");

	/* A child that does nothing until we have ended. */
	child = fork();
	if (child == 0) {
		close(end[1]);
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* Another one attaches to it, and waits for its stop. */
	if (fork() == 0) {
		close(end[1]);
		result = ptrace(PT_ATTACH, child, NULL, 0) == 0 &&
			 waitpid(child, &status, WUNTRACED) == child;
		write(traced[1], &result, sizeof(result));
		read(end[0], &byte, 1);
		_exit(0);
	}
	if (read(traced[0], &result, sizeof(result)) !=
		sizeof(result) ||
	    !result)
		errx(2, "the child cannot be traced");

	/* It is our child all the same: wait has nothing to report yet,
	 * and says 0. */
	found = waitpid(child, &status, WNOHANG);
	if (found == -1 && errno == ECHILD) {
		printf("DEFECT: wait says that the living child %d is "
		       "none (ECHILD)\n",
		    child);
		return 1;
	}
	if (found != 0)
		err(2, "wait returned %d", found);
	printf("right: wait knows the child\n");
	return 0;
}
