/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lwp_rtprio() of another process, with -1 for any of its threads, is
 * about the caller's own thread.  Any user.
 *
 *	cc lwp-rtprio-any-thread.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/lwp.h>
#include <sys/rtprio.h>
#include <unistd.h>

int
main(void)
{
	struct rtprio idle = {RTP_PRIO_IDLE, 31}, found = {0, 0};
	int ready[2], end[2];
	pid_t child;
	char byte;

	if (getuid() != 0) {
		printf("not applicable: be root\n");
		return 77;
	}
	if (pipe(ready) < 0 || pipe(end) < 0)
		err(2, "pipe");

	/* A child of idle priority. */
	child = fork();
	if (child == 0) {
		close(end[1]);
		byte = rtprio(RTP_SET, 0, &idle) == 0;
		write(ready[1], &byte, 1);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	if (read(ready[0], &byte, 1) != 1 || !byte)
		err(2, "rtprio");

	/* We, of normal priority, ask for that of any thread of its. */
	if (lwp_rtprio(RTP_LOOKUP, child, -1, &found) < 0) {
		printf("right: -1 is refused\n");
		return 0;
	}
	if (found.type != RTP_PRIO_IDLE) {
		printf("DEFECT: the child is of type %d, and said to "
		       "be of %d\n",
		    RTP_PRIO_IDLE, found.type);
		return 1;
	}
	printf("right: it is said to be idle\n");
	return 0;
}
