/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wait4(WNOHANG) with nothing to report copies out a status and a usage
 * that nobody has filled: what lay on the kernel's stack.  Any user.
 *
 *	cc wait-kernel-stack.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	struct rusage usage;
	unsigned char *bytes = (unsigned char *)&usage;
	int end[2], status, turn;
	unsigned int at, leaked = 0;
	char byte;

	if (pipe(end) < 0)
		err(2, "pipe");
	if (fork() == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	for (turn = 0; turn < 10 && leaked == 0; turn++) {
		/* The usage may come back as it was given, or empty. */
		memset(&usage, 0, sizeof(usage));
		if (wait4(-1, &status, WNOHANG, &usage) != 0)
			err(2, "wait4");
		for (at = 0; at < sizeof(usage); at++)
			leaked += bytes[at] != 0;
	}
	if (leaked != 0) {
		printf("DEFECT: of a wait in vain, %u bytes of the "
		       "usage are of the kernel's memory:",
		    leaked);
		for (at = 0; at < sizeof(usage); at += 8)
			if (*(unsigned long *)(void *)(bytes + at) != 0)
				printf(" %lx",
				    *(unsigned long *)(void *)(bytes +
							       at));
		printf("\n");
		return 1;
	}
	printf("right: a wait in vain tells nothing\n");
	return 0;
}
