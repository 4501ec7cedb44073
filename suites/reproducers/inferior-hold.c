/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each setpgid() of a process that is no descendant leaves a hold on
 * process 0, for good: inferior() climbs to it, and returns without
 * giving it back.  The count is an int and ends in the flags beside it.
 *  Any user.
 *
 *	cc inferior-hold.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/kinfo.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* How often process 0 is held. */
static int
holds(void)
{
	static union {
		struct kinfo_proc process;
		char room[8192];
	} answer;
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, 0};
	size_t size = sizeof(answer);

	if (sysctl(name, 4, &answer, &size, NULL, 0) < 0 || size == 0)
		err(2, "kern.proc.pid.0");
	return answer.process.kp_lock;
}

int
main(void)
{
	int end[2], before, after, number, status;
	pid_t other, mover;
	char byte;

	if (pipe(end) < 0)
		err(2, "pipe");
	other = fork();
	if (other == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* A child of ours tries five times to move another one, who is
	 * none of its descendants: ESRCH. */
	before = holds();
	mover = fork();
	if (mover == 0) {
		for (number = 0; number < 5; number++)
			if (setpgid(other, 0) != -1 || errno != ESRCH)
				_exit(1);
		_exit(0);
	}
	if (waitpid(mover, &status, 0) != mover || status != 0)
		errx(2, "setpgid() did not fail with ESRCH");
	after = holds();

	if (after != before) {
		printf("DEFECT: process 0 was held %d times, and is "
		       "now held %d times\n",
		    before, after);
		return 1;
	}
	printf("right: process 0 is held as often as before\n");
	return 0;
}
