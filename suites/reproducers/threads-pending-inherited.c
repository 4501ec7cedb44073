/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A signal pending for one thread is inherited by the processes that it
 * forks, where POSIX has none pending: they get signals that nobody has
 * sent to them.  Any user.
 *
 *	cc threads-pending-inherited.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/lwp.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	sigset_t mask, pending;
	int status;
	pid_t child;

	/* A signal is sent to our thread, which keeps it pending. */
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	if (lwp_kill(getpid(), lwp_gettid(), SIGUSR1) < 0)
		err(2, "lwp_kill");

	/* A child is born, to which nobody has sent anything. */
	child = fork();
	if (child == 0) {
		sigpending(&pending);
		_exit(sigismember(&pending, SIGUSR1));
	}
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
		err(2, "waitpid");
	if (WEXITSTATUS(status) == 1) {
		printf("DEFECT: SIGUSR1 is pending for a process just "
		       "born\n");
		return 1;
	}
	printf("right: nothing is pending for the child\n");
	return 0;
}
