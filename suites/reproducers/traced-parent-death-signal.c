/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process that has asked for a signal at its parent's death (procctl,
 * PROC_PDEATHSIG_CTL) gets none while it is traced: exit1() looks for
 * such children among those that are not lent to a debugger.  Any user.
 *
 *	cc traced-parent-death-signal.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * such signals.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PROC_PDEATHSIG_CTL
#define PROC_PDEATHSIG_CTL 4
#endif

static pid_t child;

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: 10 s after its parent's death the child has not "
	    "got its signal\n";

	(void)signal;
	kill(child, SIGKILL);
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	int born[2], status, wanted = SIGUSR1;
	pid_t parent;

	if (pipe(born) < 0)
		err(2, "pipe");

	/* A parent has a child, which asks for SIGUSR1 at the parent's
	 * death. */
	parent = fork();
	if (parent == 0) {
		if (fork() == 0) {
			child = getpid();
			if (procctl(P_PID, 0, PROC_PDEATHSIG_CTL,
				&wanted) < 0)
				child = 0;
			write(born[1], &child, sizeof(child));
			for (;;)
				pause();
		}
		for (;;)
			pause();
	}
	if (read(born[0], &child, sizeof(child)) != sizeof(child))
		err(2, "read");
	if (child == 0) {
		printf("not applicable: there is no "
		       "PROC_PDEATHSIG_CTL\n");
		kill(parent, SIGKILL);
		return 77;
	}

	/* We trace the child, and let it go on; the parent dies. */
	if (ptrace(PT_ATTACH, child, NULL, 0) < 0 ||
	    waitpid(child, &status, WUNTRACED) != child ||
	    ptrace(PT_CONTINUE, child, (caddr_t)1, 0) < 0)
		err(2, "PT_ATTACH");
	kill(parent, SIGKILL);
	if (waitpid(parent, &status, 0) != parent)
		err(2, "waitpid");

	/* A tracee stops for each signal. */
	signal(SIGALRM, too_late);
	alarm(10);
	if (waitpid(child, &status, WUNTRACED) != child ||
	    !WIFSTOPPED(status) || WSTOPSIG(status) != SIGUSR1)
		errx(2, "the child has not stopped at SIGUSR1");
	kill(child, SIGKILL);
	printf("right: the child has got its signal\n");
	return 0;
}
