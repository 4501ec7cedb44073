/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls that name a bare capability are checked for restrictions, and
 * not for who makes them: an ordinary user turns accounting on, and
 * mounts file systems.
 *
 *	cc acct-by-anybody.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

enum { ACCT = 51 };

int
main(void)
{
	/* An ordinary user will do. */
	if (getuid() == 0)
		setuid(65534);
	/* The path is looked for only when one is privileged. */
	if (syscall(ACCT, "/nonexistent") == 0 || errno != EPERM) {
		printf("DEFECT: acct() by an ordinary user: errno %d, "
		       "to be EPERM\n",
		    errno);
		return 1;
	}
	printf("right: acct() is refused\n");
	return 0;
}
