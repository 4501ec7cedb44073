/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whoever is the last to close a terminal waits until what was written
 * to it has been read, for ever, also when the close is part of his
 * exit: a process that is killed then does not end.  Any user.
 *
 *	cc terminal-not-read.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: a process does not end, 15 s after SIGKILL\n";

	(void)signal;
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	int master, slave, written[2], end[2], status;
	pid_t child;
	char byte;

	/* We have a terminal's master, and never read from it. */
	master = posix_openpt(O_RDWR | O_NOCTTY);
	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 ||
	    pipe(written) < 0 || pipe(end) < 0)
		err(2, "no pseudo-terminal");

	/* A child alone has its slave open, and writes something. */
	child = fork();
	if (child == 0) {
		slave = open(ptsname(master), O_RDWR | O_NOCTTY);
		close(master);
		close(end[1]);
		if (slave < 0 || write(slave, "never read", 10) != 10)
			_exit(2);
		write(written[1], "x", 1);
		read(end[0], &byte, 1);
		_exit(0);
	}
	close(written[1]);
	if (read(written[0], &byte, 1) != 1)
		errx(2, "the child could not write to the terminal");

	/* It is killed. */
	signal(SIGALRM, too_late);
	alarm(15);
	kill(child, SIGKILL);
	if (waitpid(child, &status, 0) != child)
		err(2, "waitpid");
	printf("right: the child has ended\n");
	return 0;
}
