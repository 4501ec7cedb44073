/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PROC_PDEATHSIG_CTL takes 128, which is no signal, and the kernel
 * panics when the parent dies: any user can do it.
 *
 *	cc pdeathsig-128.c && ./a.out
 *
 * A kernel that has the defect panics ("lwpsignal: invalid signal 128")
 * before anything is printed.  If the program ends, its exit status is
 * 0: the kernel is right, or 77: it has no PROC_PDEATHSIG_CTL.
 */
#include <err.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PROC_PDEATHSIG_CTL
#define PROC_PDEATHSIG_CTL 4
#define PROC_PDEATHSIG_STATUS 5
#endif

int
main(void)
{
	int asked[2], end[2], signal, status;
	pid_t parent;
	char byte;

	if (procctl(P_PID, 0, PROC_PDEATHSIG_STATUS, &signal) < 0) {
		printf("not applicable: no PROC_PDEATHSIG_CTL\n");
		return 77;
	}
	if (pipe(asked) < 0 || pipe(end) < 0)
		err(2, "pipe");

	/* A parent, which will die, with a child. */
	parent = fork();
	if (parent == 0) {
		if (fork() == 0) {
			/* The child asks for signal 128 at its parent's
			 * death.  It ought to be refused: EINVAL. */
			signal = 128;
			procctl(P_PID, 0, PROC_PDEATHSIG_CTL, &signal);
			write(asked[1], "x", 1);
			close(end[1]);
			/* until we have ended */
			read(end[0], &byte, 1);
			_exit(0);
		}
		/* The parent dies when the child has asked. */
		read(asked[0], &byte, 1);
		_exit(0);
	}

	/* The end of the parent is where the kernel panics. */
	if (waitpid(parent, &status, 0) != parent)
		err(2, "waitpid");
	printf("right: the parent has died, and nothing happened\n");
	return 0;
}
