/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * killpg() says ESRCH, no such group, of a group that exists and may
 * not be signalled, where POSIX has EPERM.
 *
 *	cc killpg-eperm.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

int
main(void)
{
	int end[2];
	pid_t leader;
	char byte;

	if (getuid() != 0) {
		printf("not applicable: be root\n");
		return 77;
	}
	if (pipe(end) < 0)
		err(2, "pipe");

	/* A child of root's that leads a process group. */
	leader = fork();
	if (leader == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	if (setpgid(leader, leader) < 0)
		err(2, "setpgid");

	/* We become an ordinary user, who may not signal it. */
	setuid(65534);
	if (killpg(leader, 0) == 0 ||
	    (errno != EPERM && errno != ESRCH))
		err(2, "killpg");
	if (errno == ESRCH) {
		printf("DEFECT: killpg() says that the group does not "
		       "exist\n");
		return 1;
	}
	printf("right: killpg() fails with EPERM\n");
	return 0;
}
