/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A child that has asked its parent to trace it (PT_TRACE_ME, as under
 * every debugger) is reported dead twice: the first wait "gives it
 * back" to its real parent, who is the caller, and leaves the zombie.
 * Any user.
 *
 *	cc traced-child-reaped-twice.c && ./a.out
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
	pid_t child, again;
	int status = 0;

	/* The child asks to be traced, and exits. */
	child = fork();
	if (child == 0) {
		ptrace(PT_TRACE_ME, 0, NULL, 0);
		_exit(5);
	}
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
	    WEXITSTATUS(status) != 5)
		errx(2, "the child did not exit with 5 (status %x)",
		    (unsigned int)status);

	/* It has been reaped: there is nobody to wait for. */
	again = waitpid(child, &status, WNOHANG);
	if (again == child) {
		printf("DEFECT: wait reports the death of process %d "
		       "once more\n",
		    child);
		return 1;
	}
	if (again != -1 || errno != ECHILD)
		err(2, "the second wait returned %d", again);
	printf("right: the child is gone after one wait\n");
	return 0;
}
