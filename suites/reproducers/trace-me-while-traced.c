/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process that somebody traces may ask for it once more
 * (PT_TRACE_ME), and the tracer becomes the parent to which it returns:
 * its real parent has lost it.  FreeBSD says EBUSY. Any user.
 *
 *	cc trace-me-while-traced.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	int traced[2], go[2], answer[2], end[2], status, result;
	pid_t child;
	char byte;

	if (pipe(traced) < 0 || pipe(go) < 0 || pipe(answer) < 0 ||
	    pipe(end) < 0)
		err(2, "pipe");

	/* A child asks to be traced when it is told to. */
	child = fork();
	if (child == 0) {
		close(end[1]);
		read(go[0], &byte, 1);
		result = ptrace(PT_TRACE_ME, 0, NULL, 0);
		write(answer[1], &result, sizeof(result));
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* Somebody traces it already. */
	if (fork() == 0) {
		close(end[1]);
		if (ptrace(PT_ATTACH, child, NULL, 0) < 0 ||
		    waitpid(child, &status, WUNTRACED) != child)
			_exit(2);
		ptrace(PT_CONTINUE, child, (caddr_t)1, 0);
		write(traced[1], "x", 1);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	close(traced[1]);
	if (read(traced[0], &byte, 1) != 1)
		errx(2, "the child cannot be traced");
	write(go[1], "x", 1);
	if (read(answer[0], &result, sizeof(result)) != sizeof(result))
		err(2, "read");
	if (result == 0) {
		printf("DEFECT: PT_TRACE_ME of a process that is "
		       "traced succeeds\n");
		return 1;
	}
	printf("right: PT_TRACE_ME is refused\n");
	return 0;
}
