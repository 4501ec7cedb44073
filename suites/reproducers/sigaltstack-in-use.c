/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sigaltstack() replaces the stack that a handler is running on, where
 * POSIX has EPERM; it refuses only to disable it.  The kernel forgets
 * then that the stack is in use: the next signal begins at the top of
 * the new one, over whatever is there.  Any user.
 *
 *	cc sigaltstack-in-use.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { SIZE = 65536 };

static char first[SIZE], second[SIZE];
static volatile int result, number, ran_on_it;

static void
handle(int signal)
{
	stack_t wanted;
	char here;

	(void)signal;
	ran_on_it = &here >= first && &here < first + SIZE;
	memset(&wanted, 0, sizeof(wanted));
	wanted.ss_sp = second;
	wanted.ss_size = sizeof(second);
	errno = 0;
	result = sigaltstack(&wanted, NULL);
	number = errno;
}

int
main(void)
{
	struct sigaction action;
	stack_t wanted;

	/* Handlers of SIGUSR1 run on a stack of their own. */
	memset(&wanted, 0, sizeof(wanted));
	wanted.ss_sp = first;
	wanted.ss_size = sizeof(first);
	if (sigaltstack(&wanted, NULL) < 0)
		err(2, "sigaltstack");
	memset(&action, 0, sizeof(action));
	action.sa_handler = handle;
	action.sa_flags = SA_ONSTACK;
	sigaction(SIGUSR1, &action, NULL);
	kill(getpid(), SIGUSR1);

	if (!ran_on_it)
		errx(2, "the handler did not run on its stack");
	if (result == 0) {
		printf("DEFECT: the stack that the handler ran on was "
		       "replaced\n");
		return 1;
	}
	if (number != EPERM)
		errx(2, "errno %d", number);
	printf("right: EPERM\n");
	return 0;
}
