/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process that exits kills its peers of rfork(RFTHREAD) by kill(),
 * which may be refused, and waits for them: one that has given up its
 * privileges meanwhile sleeps for ever, and cannot be killed.
 *
 *	cc leader-of-threads-setuid.c && ./a.out		(as
 * root, since it gives up its privileges)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.  With the defect a process remains that cannot be killed.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: 10 s after the leader has exited it still waits "
	    "for its peer\n";

	(void)signal;
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	pid_t leader;
	int status, end[2];
	char byte;

	if (getuid() != 0) {
		printf("not applicable: be root\n");
		return 77;
	}
	if (pipe(end) < 0)
		err(2, "pipe");
	leader = fork();
	if (leader == 0) {
		close(end[1]);
		/* A peer that does nothing. */
		if (rfork(RFPROC | RFFDG | RFTHREAD) == 0) {
			read(end[0], &byte, 1);
			_exit(0);
		}
		/* The leader becomes another user, and exits. */
		setuid(65534);
		_exit(0);
	}
	signal(SIGALRM, too_late);
	alarm(10);
	if (waitpid(leader, &status, 0) != leader)
		err(2, "waitpid");
	printf("right: the leader has ended\n");
	return 0;
}
