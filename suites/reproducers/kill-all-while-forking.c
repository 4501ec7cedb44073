/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kill(-1) asks for the owner of every process on the list, also of one
 * that fork() has put there and given no owner yet: a NULL is followed,
 * and the kernel panics.  Any user; it takes several CPUs, and up to a
 * minute.
 *
 *	cc kill-all-while-forking.c && ./a.out
 *
 * A kernel that has the defect panics before anything is printed.  If
 * the program ends, its exit status is 0: the panic has not happened,
 * which on a machine with one CPU says nothing.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 60 };

static long
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

int
main(void)
{
	long begun = now();
	pid_t sender, child;
	int status;

	/* One process sends signal 0, which harms nobody, to everybody
	 * it may signal. */
	sender = fork();
	if (sender == 0) {
		/* An ordinary user will do. */
		if (getuid() == 0)
			setuid(65534);
		while (now() < begun + SECONDS)
			kill(-1, 0);
		_exit(0);
	}

	/* Meanwhile processes are born, as fast as can be. */
	while (now() < begun + SECONDS) {
		child = fork();
		if (child == 0)
			_exit(0);
		if (child < 0 || waitpid(child, &status, 0) != child)
			err(2, "fork, waitpid");
	}
	waitpid(sender, &status, 0);
	printf("right: everybody was signalled for %d seconds, and "
	       "nothing happened\n",
	    SECONDS);
	return 0;
}
