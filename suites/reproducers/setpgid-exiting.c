/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * setpgid() moves a process that is exiting and has been taken from the
 * counts of job control already: a group loses it twice, and becomes an
 * orphaned one too early, or counts it for ever.  Any user; it takes
 * several CPUs.
 *
 *	cc setpgid-exiting.c && ./a.out
 *
 * Exit status: 0 nothing has happened, which on a machine with one CPU
 * says nothing, 1 the kernel has the defect.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/kinfo.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 5000 };

/* What PID's process group counts: its members whose parents are in the
 * same session and another group. */
static int
jobc(pid_t pid)
{
	static union {
		struct kinfo_proc process;
		char room[8192];
	} answer;
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, pid};
	size_t size = sizeof(answer);

	if (sysctl(name, 4, &answer, &size, NULL, 0) < 0 || size == 0)
		err(2, "kern.proc.pid");
	return answer.process.kp_jobc;
}

int
main(void)
{
	int end[2], number, before, after, status;
	pid_t leader, child;
	char byte;

	if (pipe(end) < 0)
		err(2, "pipe");

	/* A group of one member, whose parent we are. */
	leader = fork();
	if (leader == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	if (setpgid(leader, leader) < 0)
		err(2, "setpgid");
	before = after = jobc(leader);

	/* Children exit, while each goes to that group and to one of
	 * its own, until there is nobody left to be moved. */
	for (number = 0; number < CHILDREN && after == before;
	    number++) {
		child = fork();
		if (child == 0)
			_exit(0);
		while (setpgid(child, leader) == 0 &&
		    setpgid(child, child) == 0)
			;
		if (waitpid(child, &status, 0) != child)
			err(2, "waitpid");
		after = jobc(leader);
	}
	if (after != before) {
		printf("DEFECT: the group counts %d, and %d before %d "
		       "children came and went\n",
		    after, before, number);
		return 1;
	}
	printf("right: the group counts what it counted before\n");
	return 0;
}
