/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A path of more than 1023 bytes is refused with EFAULT, bad address,
 * where ENAMETOOLONG is promised: copyinstr() compares the wrong
 * address with the end of user memory.  Any user.
 *
 *	cc path-too-long.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int
main(void)
{
	static char path[1101];

	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	if (chdir(path) != -1 ||
	    (errno != EFAULT && errno != ENAMETOOLONG))
		err(2, "chdir");
	if (errno == EFAULT) {
		printf("DEFECT: chdir() of 1100 bytes fails with "
		       "EFAULT\n");
		return 1;
	}
	printf("right: it fails with ENAMETOOLONG\n");
	return 0;
}
