/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the last thread of a process has used is added to the process's
 * usage twice when it exits: wait4() tells the parent twice what
 * getrusage() told the child.  Any user.
 *
 *	cc rusage-counted-twice.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void
hear(int signal)
{
	(void)signal;
}

int
main(void)
{
	struct rusage own, told;
	int answer[2], status, number;
	pid_t child;

	if (pipe(answer) < 0)
		err(2, "pipe");

	/* A child takes twenty signals, tells what it has used, and
	 * exits. */
	child = fork();
	if (child == 0) {
		signal(SIGUSR1, hear);
		for (number = 0; number < 20; number++)
			kill(getpid(), SIGUSR1);
		getrusage(RUSAGE_SELF, &own);
		write(answer[1], &own, sizeof(own));
		_exit(0);
	}
	if (read(answer[0], &own, sizeof(own)) != sizeof(own) ||
	    wait4(child, &status, 0, &told) != child)
		err(2, "read, wait4");
	printf("signals: the child was told %ld, its parent %ld\n",
	    own.ru_nsignals, told.ru_nsignals);
	if (own.ru_nsignals < 20)
		errx(2, "not all signals have come");
	if (told.ru_nsignals > own.ru_nsignals) {
		printf("DEFECT: they are counted twice\n");
		return 1;
	}
	printf("right: they are counted once\n");
	return 0;
}
