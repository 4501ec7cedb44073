/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PT_KILL does not kill a tracee that was stopped in its sleep: the
 * signal is left where nobody looks for it.  What PT_CONTINUE is to
 * deliver is lost as well.  Any user.
 *
 *	cc ptrace-kill-in-sleep.c && ./a.out
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
	    "DEFECT: 10 s after PT_KILL the tracee lives\n";

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

	/* A child sleeps: it reads from a pipe into which nobody
	 * writes. */
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	/* there is no telling from here when it sleeps */
	usleep(500000);

	/* We attach to it, and kill it. */
	if (ptrace(PT_ATTACH, child, NULL, 0) < 0 ||
	    waitpid(child, &status, WUNTRACED) != child)
		err(2, "PT_ATTACH");
	if (ptrace(PT_KILL, child, NULL, 0) < 0)
		err(2, "PT_KILL");
	signal(SIGALRM, too_late);
	alarm(10);
	if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status))
		err(2, "waitpid");
	printf("right: PT_KILL kills\n");
	return 0;
}
