/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * No SIGCHLD is sent to the parent when a stopped child goes on, as
 * POSIX has it unless SA_NOCLDSTOP was asked for.  Any user.
 *
 *	cc sigcont-no-sigchld.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void
hear(int signal)
{
	(void)signal;
}

int
main(void)
{
	struct timespec patience = {5, 0};
	int end[2], status;
	sigset_t child_signal;
	siginfo_t info;
	pid_t child;
	char byte;

	/* SIGCHLD is kept pending, to be waited for: what has no
	 * handler would be discarded. */
	signal(SIGCHLD, hear);
	sigemptyset(&child_signal);
	sigaddset(&child_signal, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child_signal, NULL);
	if (pipe(end) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* The child stops, which is told by a SIGCHLD. */
	kill(child, SIGSTOP);
	if (waitpid(child, &status, WUNTRACED) != child ||
	    !WIFSTOPPED(status))
		err(2, "waitpid");
	if (sigtimedwait(&child_signal, &info, &patience) != SIGCHLD)
		err(2, "no SIGCHLD for the stop");

	/* It goes on, which ought to be told as well. */
	kill(child, SIGCONT);
	if (waitpid(child, &status, WCONTINUED) != child)
		err(2, "waitpid");
	if (sigtimedwait(&child_signal, &info, &patience) != SIGCHLD) {
		printf("DEFECT: there is no SIGCHLD when the child "
		       "goes on\n");
		return 1;
	}
	printf("right: a SIGCHLD for the stop, and one for its end\n");
	return 0;
}
