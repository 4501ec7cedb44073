/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When a debugger dies, its tracee is killed and left to the debugger's
 * reaper.  Its real parent, who waits for it, is never told.  Any user.
 *
 *	cc tracer-dies.c && ./a.out
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
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: the parent is not told of its child's death\n";

	(void)signal;
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	int died[2], end[2], status;
	pid_t child, tracer;
	char byte;

	if (pipe(died) < 0 || pipe(end) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* A reaper has a child that attaches to ours, and exits. */
	if (fork() == 0) {
		close(end[1]);
		if (procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL) <
		    0)
			_exit(77);
		tracer = fork();
		if (tracer == 0) {
			ptrace(PT_ATTACH, child, NULL, 0);
			waitpid(child, &status, WUNTRACED);
			_exit(0);
		}
		waitpid(tracer, &status, 0);
		write(died[1], "x", 1);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	close(died[1]);
	if (read(died[0], &byte, 1) != 1) {
		printf("not applicable: there are no reapers\n");
		return 77;
	}

	/* Our child has been killed with its tracer. */
	signal(SIGALRM, too_late);
	alarm(10);
	if (waitpid(child, &status, 0) == child) {
		printf("right: wait tells of the child's death\n");
		return 0;
	}
	if (errno != ECHILD)
		err(2, "waitpid");
	too_late(0);
	return 1;
}
