/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wait6(P_JAILID, N) takes any child that is in no jail for one of jail
 * N. Any user.
 *
 *	cc wait6-jailid.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * wait6().
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void
no_such_call(int signal)
{
	(void)signal;
	_exit(77);
}

int
main(void)
{
	pid_t child, found;
	int status;

	signal(SIGSYS, no_such_call);
	/* A child in no jail exits. */
	child = fork();
	if (child == 0)
		_exit(0);

	/* We wait for somebody in jail 77, who is nobody: ECHILD. */
	found = wait6(P_JAILID, 77, &status, WEXITED, NULL, NULL);
	if (found == child) {
		printf("DEFECT: a child in no jail passes for one in "
		       "jail 77\n");
		return 1;
	}
	if (found != -1 || errno != ECHILD)
		err(2, "wait6");
	printf("right: there is nobody of jail 77\n");
	return 0;
}
