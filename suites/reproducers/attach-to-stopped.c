/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PT_ATTACH to a process that is stopped lets it run on: the debugger,
 * who waits for the stop that he is promised, waits for ever.  Any
 * user.
 *
 *	cc attach-to-stopped.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
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
	    "DEFECT: 10 s after PT_ATTACH there is no stop\n";

	(void)signal;
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	int end[2], status;
	pid_t child;
	char byte;

	if (pipe(end) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* The child is stopped. */
	kill(child, SIGSTOP);
	if (waitpid(child, &status, WUNTRACED) != child)
		err(2, "waitpid");

	/* We attach to it, and wait for its stop. */
	if (ptrace(PT_ATTACH, child, NULL, 0) < 0)
		err(2, "PT_ATTACH");
	signal(SIGALRM, too_late);
	alarm(10);
	if (waitpid(child, &status, WUNTRACED) != child ||
	    !WIFSTOPPED(status))
		err(2, "waitpid");
	printf("right: the debugger is told of the stop\n");
	return 0;
}
