/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A child that rfork(RFNOWAIT) gives to the reaper is not counted for
 * job control at its birth, and taken from the count at its end: its
 * group counts one less than before, and becomes an orphaned one too
 * early.  Any user.
 *
 *	cc rfnowait-job-control.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * reapers.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/kinfo.h>
#include <sys/procctl.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

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
	int ready[2], go[2], status, before, after;
	pid_t parent;
	char byte;

	if (pipe(ready) < 0 || pipe(go) < 0)
		err(2, "pipe");

	/* We are the reaper. */
	if (procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL) < 0) {
		printf("not applicable: there are no reapers\n");
		return 77;
	}

	/* A child in a group of its own has a child that is ours from
	 * the beginning, and that exits at once. */
	parent = fork();
	if (parent == 0) {
		setpgid(0, 0);
		write(ready[1], "x", 1);
		read(go[0], &byte, 1);
		if (rfork(RFPROC | RFFDG | RFNOWAIT) == 0)
			_exit(0);
		for (;;)
			pause();
	}
	read(ready[0], &byte, 1);
	before = jobc(parent);
	write(go[1], "x", 1);
	if (wait(&status) < 0)
		err(2, "wait");
	after = jobc(parent);
	kill(parent, SIGKILL);
	if (after != before) {
		printf("DEFECT: the group counts %d after a child has "
		       "come and gone, and %d before\n",
		    after, before);
		return 1;
	}
	printf("right: the group counts what it counted before\n");
	return 0;
}
