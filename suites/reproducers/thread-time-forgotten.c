/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The time that a thread has used is forgotten when it ends: what
 * getrusage(RUSAGE_SELF) tells of a process goes back.  Any user.
 *
 *	cc thread-time-forgotten.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.  It takes a
 * second.
 */
#include <err.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/lwp.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* extexit() ends a thread: <sys/unistd.h>. */
enum { EXTEXIT = 494, A_THREAD = 1 << 16 };

static char stack[65536];
static volatile int done, go;

static long
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Use time for a second, then end when told to. */
static void
work(void *nothing)
{
	long until = now() + 1000;

	(void)nothing;
	while (now() < until)
		;
	done = 1;
	while (!go)
		usleep(1000);
	go = 2;
	syscall(EXTEXIT, (long)A_THREAD, 0L, NULL);
}

/* What this process has used, in milliseconds. */
static long
used(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	    (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

int
main(void)
{
	struct lwp_params thread = {work, NULL,
	    stack + sizeof(stack) - 8, NULL, NULL};
	long before, after;

	if (lwp_create(&thread) < 0)
		err(2, "lwp_create");
	while (!done)
		usleep(10000);
	before = used();

	/* The thread ends; there is no telling from here when. */
	go = 1;
	while (go != 2)
		usleep(10000);
	usleep(500000);
	after = used();
	if (after < before) {
		printf("DEFECT: the process has used %ld ms before the "
		       "thread has ended, and %ld ms after\n",
		    before, after);
		return 1;
	}
	printf("right: %ld ms before the thread has ended, %ld after\n",
	    before, after);
	return 0;
}
