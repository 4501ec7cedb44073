/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What wait6() tells of a child that has stopped, or goes on, is no
 * more than si_code: si_signo, si_pid and si_status, which POSIX wants
 * to be SIGCHLD, the child and the signal, are 0.  Any user.
 *
 *	cc wait6-report-of-a-stop.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * wait6().
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void
no_such_call(int signal)
{
	(void)signal;
	_exit(77);
}

int
main(void)
{
	siginfo_t info;
	int end[2], status, wrong = 0;
	pid_t child;
	char byte;

	signal(SIGSYS, no_such_call);
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
	if (wait6(P_PID, child, &status, WUNTRACED | WEXITED, NULL,
		&info) != child)
		err(2, "wait6");
	printf("of the stop: si_signo %d, si_pid %d, si_status %d\n",
	    info.si_signo, info.si_pid, info.si_status);
	wrong += info.si_signo != SIGCHLD || info.si_pid != child ||
		 info.si_status != SIGSTOP;

	/* It goes on. */
	kill(child, SIGCONT);
	if (wait6(P_PID, child, &status, WCONTINUED | WEXITED, NULL,
		&info) != child)
		err(2, "wait6");
	printf("of its end: si_signo %d, si_pid %d, si_status %d\n",
	    info.si_signo, info.si_pid, info.si_status);
	wrong += info.si_signo != SIGCHLD || info.si_pid != child ||
		 info.si_status != SIGCONT;

	if (wrong != 0) {
		printf("DEFECT: they ought to be %d, %d, the signal\n",
		    SIGCHLD, child);
		return 1;
	}
	printf("right: both reports are complete\n");
	return 0;
}
