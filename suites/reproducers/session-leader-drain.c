/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A session leader that exits waits until what was written to its
 * terminal has been read: for ever, and it cannot be killed, though
 * others have the terminal open as well.  Any user.
 *
 *	cc session-leader-drain.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: a session leader does not end, 15 s after its "
	    "exit\n";

	(void)signal;
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	int master, slave, status;
	pid_t leader;

	/* We have both ends of a terminal, and read neither. */
	master = posix_openpt(O_RDWR | O_NOCTTY);
	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
		err(2, "no pseudo-terminal");
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	if (slave < 0)
		err(2, "slave");

	/* A child is the leader of its session, writes, and exits. */
	signal(SIGALRM, too_late);
	alarm(15);
	leader = fork();
	if (leader == 0) {
		close(master);
		if (setsid() < 0 || ioctl(slave, TIOCSCTTY, NULL) < 0 ||
		    write(slave, "never read", 10) != 10)
			_exit(2);
		_exit(3);
	}
	if (waitpid(leader, &status, 0) != leader)
		err(2, "waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 3)
		errx(2, "the leader has no terminal");
	printf("right: the session leader has ended\n");
	return 0;
}
