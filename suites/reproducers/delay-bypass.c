/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pid is to come back no sooner than ten seconds after it was reaped.
 *  Where the next pid is in use, proc_makepid() steps on to another
 * one, and does not look at when that one was reaped.
 *
 *	cc delay-bypass.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.  It takes up to eight seconds.
 */
#include <err.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIVING = 100, FORKS = 800, SECONDS = 8, PIDS = 1000000 };

static long reaped[PIDS]; /* when, in milliseconds; 0 for never */

static long
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

int
main(void)
{
	int end[2], number, random = 100, before, status, early = 0;
	size_t size = sizeof(before);
	long begun;
	pid_t child;
	char byte;

	/* New pids are chosen at random among the next hundred. */
	if (sysctlbyname("kern.randompid", &before, &size, &random,
		sizeof(random)) < 0) {
		printf("not applicable: kern.randompid cannot be set "
		       "(be root)\n");
		return 77;
	}

	/* A hundred processes live, so that many a choice falls on a
	 * pid in use. */
	if (pipe(end) < 0)
		err(2, "pipe");
	for (number = 0; number < LIVING; number++)
		if (fork() == 0) {
			close(end[1]);
			/* until we have ended */
			read(end[0], &byte, 1);
			_exit(0);
		}

	/* Children are born and reaped; whose pid was reaped before was
	 * reaped eight seconds ago at the most. */
	begun = now();
	for (number = 0; number < FORKS && early == 0; number++) {
		if (now() >= begun + SECONDS * 1000)
			break;
		child = fork();
		if (child == 0)
			_exit(0);
		if (child < 0 || waitpid(child, &status, 0) != child)
			err(2, "fork, waitpid");
		if (reaped[child] != 0)
			early = child;
		else
			reaped[child] = now();
	}
	sysctlbyname("kern.randompid", NULL, NULL, &before,
	    sizeof(before));

	if (early != 0) {
		printf("DEFECT: pid %d came back %ld ms after it was "
		       "reaped\n",
		    early, now() - reaped[early]);
		return 1;
	}
	printf("right: no pid came back in %d forks\n", number);
	return 0;
}
