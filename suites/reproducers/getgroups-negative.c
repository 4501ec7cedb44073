/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * getgroups() takes its count for unsigned: -1 is room for any number
 * of groups, where POSIX has EINVAL. Any user; a program that hands on
 * a length it has miscomputed is overwritten.
 *
 *	cc getgroups-negative.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

int
main(void)
{
	gid_t groups[64];
	int count = getgroups(-1, groups);

	if (count != -1) {
		printf("DEFECT: getgroups(-1) stores %d groups\n",
		    count);
		return 1;
	}
	printf("right: getgroups(-1) fails, errno %d\n", errno);
	return 0;
}
