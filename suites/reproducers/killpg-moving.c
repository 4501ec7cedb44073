/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * killpg() walks over the members of a group while they move, and from
 * one that has moved on to the members of the group it has moved to:
 * processes get a signal that was sent to another group.  Any user; it
 * takes several CPUs, and up to a minute.
 *
 *	cc killpg-moving.c && ./a.out
 *
 * Exit status: 0 nothing has happened, which on a machine with one CPU
 * says nothing, 1 the kernel has the defect.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EACH = 4, SECONDS = 60 };

static volatile int *hit; /* seen by all */

static void
got_it(int signal)
{
	(void)signal;
	*hit += 1;
}

static long
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

/* A process in group GROUP, of its own if that is 0.  Where it is to
 * MOVE, it goes to and fro between that group and its own, until it is
 * killed. */
static pid_t
member(pid_t group, pid_t move, void (*handler)(int), int said[2])
{
	pid_t made = fork();

	if (made != 0)
		return made;
	signal(SIGUSR1, handler);
	if (setpgid(0, group) < 0)
		_exit(2);
	write(said[1], "x", 1);
	while (move != 0) {
		setpgid(0, move);
		setpgid(0, group);
	}
	for (;;)
		pause();
}

int
main(void)
{
	pid_t all[2 + 2 * EACH], leader, shelter;
	int number = 0, each, said[2], status;
	long begun = now();
	char byte;

	hit = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
	    MAP_ANON | MAP_SHARED, -1, 0);
	if (hit == MAP_FAILED || pipe(said) < 0)
		err(2, "mmap, pipe");

	/* Two groups: one is signalled, the other is not. */
	leader = all[number++] = member(0, 0, SIG_IGN, said);
	shelter = all[number++] = member(0, 0, SIG_IGN, said);
	read(said[0], &byte, 1), read(said[0], &byte, 1);

	/* Some stay in that one for good; some go to and fro. */
	for (each = 0; each < EACH; each++)
		all[number++] = member(shelter, 0, got_it, said);
	for (each = 0; each < EACH; each++)
		read(said[0], &byte, 1);
	for (each = 0; each < EACH; each++)
		all[number++] = member(leader, shelter, SIG_IGN, said);

	while (now() < begun + SECONDS && *hit == 0)
		killpg(leader, SIGUSR1);
	for (each = 0; each < number; each++) {
		kill(all[each], SIGKILL);
		waitpid(all[each], &status, 0);
	}
	if (*hit != 0) {
		printf("DEFECT: who has never been in the group gets "
		       "the signal that was sent to it\n");
		return 1;
	}
	printf("right: the signal has reached nobody else\n");
	return 0;
}
