/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * killpg() walks over the members of a group without the token that
 * protects their list.  One that exits and is reaped between two of its
 * steps is looked at when its credentials are gone, and the kernel
 * panics (page fault in p_trespass, called by sys_kill).  Any user; it
 * takes several CPUs, and seconds: with four of them in a guest of QEMU
 * it took nine.
 *
 *	cc killpg-reaped.c && ./a.out
 *
 * Exit status: 0 nothing has happened, which on a machine with one CPU
 * says nothing.  With the defect the kernel panics.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 8, SECONDS = 60 };

static long
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

/* Make children that join the group of LEADER and exit, and reap
 * them, until the time is over. */
static void
come_and_go(pid_t leader, long until)
{
	int each;

	while (now() < until) {
		for (each = 0; each < AT_ONCE; each++)
			if (fork() == 0) {
				setpgid(0, leader);
				_exit(0);
			}
		while (wait(NULL) > 0)
			continue;
	}
}

int
main(void)
{
	pid_t leader, maker[2];
	long until = now() + SECONDS;
	int each;

	/* A group that stays: its leader only waits. */
	leader = fork();
	if (leader < 0)
		err(2, "fork");
	if (leader == 0)
		for (;;)
			pause();
	if (setpgid(leader, leader) < 0)
		err(2, "setpgid");

	/* Its other members come and go... */
	for (each = 0; each < 2; each++) {
		maker[each] = fork();
		if (maker[each] == 0) {
			come_and_go(leader, until);
			_exit(0);
		}
	}

	/* ... while it is asked whether there are any: signal 0. */
	while (now() < until)
		killpg(leader, 0);

	for (each = 0; each < 2; each++)
		waitpid(maker[each], NULL, 0);
	kill(leader, SIGKILL);
	waitpid(leader, NULL, 0);
	printf("right: nothing has happened in %d s\n", SECONDS);
	return 0;
}
