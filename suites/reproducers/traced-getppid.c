/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * getppid() of a traced process returns its debugger's pid; kern.proc
 * tells the parent's.  Any user.
 *
 *	cc traced-getppid.c && ./a.out
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
	int ask[2], answer[2], traced[2], end[2], status;
	pid_t child, parent;
	char byte;

	if (pipe(ask) < 0 || pipe(answer) < 0 || pipe(traced) < 0 ||
	    pipe(end) < 0)
		err(2, "pipe");

	/* A child tells who its parent is, when it is asked. */
	child = fork();
	if (child == 0) {
		read(ask[0], &byte, 1);
		parent = getppid();
		write(answer[1], &parent, sizeof(parent));
		_exit(0);
	}

	/* Another one attaches to it, and lets it run on. */
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

	write(ask[1], "x", 1);
	if (read(answer[0], &parent, sizeof(parent)) != sizeof(parent))
		err(2, "read");
	if (parent != getpid()) {
		printf("DEFECT: the parent of %d is %d, and getppid() "
		       "returns %d, the debugger\n",
		    child, getpid(), parent);
		return 1;
	}
	printf("right: getppid() returns the parent\n");
	return 0;
}
