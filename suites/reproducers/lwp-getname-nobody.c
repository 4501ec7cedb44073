/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lwp_getname() of a thread that does not exist succeeds, with an empty
 * name, instead of ESRCH (lwp_getname(2)).  Any user.
 *
 *	cc lwp-getname-nobody.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * lwp_getname().
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/lwp.h>
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
	char name[64];

	signal(SIGSYS, no_such_call);
	/* We have one thread, whose number is not 99999. */
	if (lwp_getname(99999, name, sizeof(name)) == 0) {
		printf("DEFECT: a thread that does not exist has a "
		       "name\n");
		return 1;
	}
	if (errno != ESRCH) {
		printf("not applicable: errno %d\n", errno);
		return 77;
	}
	printf("right: ESRCH\n");
	return 0;
}
