/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Of a child that goes on, wait4(WCONTINUED) tells a usage that nobody
 * has filled: what lay on the kernel's stack.  Any user.
 *
 *	cc wait-continued-stack.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <signal.h>
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
	pid_t child;
	char byte;

	if (pipe(end) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	for (turn = 0; turn < 5 && leaked == 0; turn++) {
		/* It stops, and goes on. */
		kill(child, SIGSTOP);
		if (waitpid(child, &status, WUNTRACED) != child)
			err(2, "waitpid");
		kill(child, SIGCONT);
		memset(&usage, 0, sizeof(usage));
		if (wait4(child, &status, WCONTINUED, &usage) != child)
			err(2, "wait4");
		/* All is 0, as of one that stops. */
		for (at = 0; at < sizeof(usage); at++)
			leaked += bytes[at] != 0;
	}
	if (leaked != 0) {
		printf("DEFECT: %u bytes of the usage are of the "
		       "kernel's memory\n",
		    leaked);
		return 1;
	}
	printf("right: the usage is empty\n");
	return 0;
}
