/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A child may trace its own parent.  The tracer counts as the parent,
 * so that parents run in a circle, and setpgid(), which climbs from the
 * process it is about to its ancestors (inferior()), never returns: any
 * user can hang a CPU.
 *
 *	cc tracing-circle.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.  Then one
 * process runs in the kernel for ever, with tokens held: on a machine
 * with one CPU nothing else runs any more, and nothing is printed.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: setpgid() has not returned in 20 seconds\n";

	(void)signal;
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	int traced[2], end[2], status;
	pid_t parent, child, other;
	char byte;

	if (pipe(traced) < 0 || pipe(end) < 0)
		err(2, "pipe");

	/* A parent with a child. */
	parent = fork();
	if (parent == 0) {
		close(end[1]);
		if (fork() == 0) {
			/* The child attaches to its parent, and waits
			 * until that has stopped. */
			child = getpid();
			if (ptrace(PT_ATTACH, getppid(), NULL, 0) < 0)
				child =
				    /* refused: there is no circle */
				    0;
			else
				waitpid(getppid(), &status, WUNTRACED);
			write(traced[1], &child, sizeof(child));
		}
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	if (read(traced[0], &child, sizeof(child)) != sizeof(child))
		err(2, "read");
	if (child == 0) {
		printf("right: a child cannot trace its parent\n");
		return 0;
	}

	/* Somebody who is no ancestor of the child tries to move it. He
	 * is to be told ESRCH. */
	signal(SIGALRM, too_late);
	alarm(20);
	other = fork();
	if (other == 0) {
		setpgid(child, 0);
		_exit(0);
	}
	if (waitpid(other, &status, 0) != other)
		err(2, "waitpid");
	printf("right: setpgid() has returned\n");
	return 0;
}
