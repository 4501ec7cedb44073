/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parent of a process that is traced is remembered as a number.  If
 * it has died, and another process has its number by the time that the
 * debugger lets go, that one gets a child it never had.
 *
 *	cc detached-to-stranger.c && ./a.out		(as root, to
 * have a pid come back soon)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.  It takes some 20 seconds, and longer on a slow machine.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/ptrace.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LARGEST = 999899, ENOUGH = 3000, TRIES = 200000 };

static int stay[2]; /* whoever reads it ends with us */

/* Have new pids chosen among the next MODULUS; 0 for one by one. */
static int
choose_among(int modulus)
{
	return sysctlbyname("kern.randompid", NULL, NULL, &modulus,
	    sizeof(modulus));
}

/* A process that stays if it is WANTED, or none is, and ends if not. */
static pid_t
born(pid_t wanted)
{
	int status;
	pid_t made = fork();
	char byte;

	if (made == 0) {
		close(stay[1]);
		/* until we have ended */
		if (wanted == 0 || getpid() == wanted)
			read(stay[0], &byte, 1);
		_exit(0);
	}
	if (made < 0)
		err(2, "fork");
	if (wanted != 0 && made != wanted)
		waitpid(made, &status, 0);
	return made;
}

/* Make processes until one has the number WANTED; tell whether one has.
 * Numbers grow, and begin again from below only where the choice among
 * the next ones goes beyond the largest: then a small one comes. */
static int
born_as(pid_t wanted)
{
	int tries;
	pid_t last = wanted + 1;

	for (tries = 0; tries < TRIES && last != wanted; tries++) {
		if (last > wanted)
			choose_among(LARGEST);
		last = born(wanted);
		if (last < wanted)
			choose_among(0);
	}
	choose_among(0);
	return last == wanted;
}

int
main(void)
{
	int ready[2], ask[2], answer[2], status;
	pid_t parent, child, stranger, found;
	char byte;

	if (pipe(ready) < 0 || pipe(ask) < 0 || pipe(answer) < 0 ||
	    pipe(stay) < 0)
		err(2, "pipe");
	if (choose_among(0) < 0) {
		printf("not applicable: kern.randompid cannot be set "
		       "(be root)\n");
		return 77;
	}

	/* The larger the next number, the sooner it begins again. */
	while (born(-1) < ENOUGH)
		;

	/* A parent has a child, which tells who its parent is when it
	 * is asked. */
	parent = fork();
	if (parent == 0) {
		if (fork() == 0) {
			close(stay[1]);
			child = getpid();
			write(ready[1], &child, sizeof(child));
			read(ask[0], &byte, 1);
			found = getppid();
			write(answer[1], &found, sizeof(found));
			read(stay[0], &byte, 1);
			_exit(0);
		}
		for (;;)
			pause();
	}
	if (read(ready[0], &child, sizeof(child)) != sizeof(child))
		err(2, "read");

	/* We trace the child; its parent dies. */
	if (ptrace(PT_ATTACH, child, NULL, 0) < 0 ||
	    waitpid(child, &status, WUNTRACED) != child)
		err(2, "PT_ATTACH");
	kill(parent, SIGKILL);
	if (waitpid(parent, &status, 0) != parent)
		err(2, "waitpid");

	/* A stranger gets the parent's number, which takes ten seconds
	 * to be free again. */
	usleep(12000000);
	stranger = parent;
	if (!born_as(stranger)) {
		printf("not applicable: no process got the number %d\n",
		    stranger);
		return 77;
	}

	/* We let the child go, and ask it. */
	ptrace(PT_DETACH, child, (caddr_t)1, 0);
	write(ask[1], "x", 1);
	if (read(answer[0], &found, sizeof(found)) != sizeof(found))
		err(2, "read");
	if (found == stranger) {
		printf("DEFECT: a stranger, %d, is the parent of %d\n",
		    stranger, child);
		return 1;
	}
	printf("right: the child's parent is %d, not %d\n", found,
	    stranger);
	return 0;
}
