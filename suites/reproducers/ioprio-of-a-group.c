/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ioprio_get() of a process group compares the members' nice values
 * with I/O priorities: what it returns is not the highest of the group.
 *  Any user.
 *
 *	cc ioprio-of-a-group.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/resource.h>
#include <unistd.h>

int
main(void)
{
	int ready[2], end[2], found;
	char byte;

	if (pipe(ready) < 0 || pipe(end) < 0)
		err(2, "pipe");

	/* A group of two: we have I/O priority 2, a child has 9. */
	setpgid(0, 0);
	if (fork() == 0) {
		close(end[1]);
		ioprio_set(PRIO_PROCESS, 0, 9);
		write(ready[1], "x", 1);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	read(ready[0], &byte, 1);
	if (ioprio_set(PRIO_PROCESS, 0, 2) < 0)
		err(2, "ioprio_set");

	found = ioprio_get(PRIO_PGRP, 0);
	if (found != 9) {
		printf("DEFECT: of 2 and 9 the highest is %d\n", found);
		return 1;
	}
	printf("right: of 2 and 9 the highest is 9\n");
	return 0;
}
