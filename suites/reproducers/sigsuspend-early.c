/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A signal that comes between the new mask of sigsuspend() and its
 * sleep is handled, and the sleep goes on: for ever, if no other comes.
 * Any user; it takes several CPUs.
 *
 *	cc sigsuspend-early.c && ./a.out
 *
 * Exit status: 0 it has not happened, which on a machine with one CPU
 * says nothing, 1 the kernel has the defect.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TURNS = 20000 };

static volatile int *turn; /* seen by both */
static pid_t waiter;

static void
handle(int signal)
{
	(void)signal;
}

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: sigsuspend() sleeps on, 10 s after its signal\n";

	(void)signal;
	kill(waiter, SIGKILL);
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	sigset_t mask, none;
	volatile int spin;
	int number, status;

	turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
	    MAP_ANON | MAP_SHARED, -1, 0);
	if (turn == MAP_FAILED)
		err(2, "mmap");
	signal(SIGUSR1, handle);
	sigemptyset(&none);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigprocmask(SIG_BLOCK, &mask, NULL);

	/* A child waits for a signal, and says so each time just before
	 * and just after. */
	waiter = fork();
	if (waiter == 0)
		for (;;) {
			*turn += 1;
			sigsuspend(&none);
			*turn += 1;
		}

	/* We send one at another moment each time. */
	signal(SIGALRM, too_late);
	for (number = 0; number < TURNS; number++) {
		alarm(10);
		while (*turn % 2 == 0)
			;
		status = *turn;
		for (spin = number % 500; spin > 0; spin--)
			;
		kill(waiter, SIGUSR1);
		while (*turn == status)
			;
	}
	kill(waiter, SIGKILL);
	waitpid(waiter, &status, 0);
	printf("right: each of %d signals has ended its wait\n", TURNS);
	return 0;
}
