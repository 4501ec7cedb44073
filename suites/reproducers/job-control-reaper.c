/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process group counts as orphaned although one of its members has a
 * parent in the same session and another group: when a parent dies, it
 * is taken from the count (fixjobc()), and the reaper that is the
 * parent from then on is not added.  The group cannot be stopped from
 * the terminal any more.  Any user.
 *
 *	cc job-control-reaper.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * reapers.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t member;

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: SIGTSTP does not stop a member of the group: it "
	    "counts as orphaned\n";

	(void)signal;
	kill(member, SIGKILL);
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	int ready[2], end[2], status;
	pid_t middle;
	char byte;

	if (pipe(ready) < 0 || pipe(end) < 0)
		err(2, "pipe");

	/* Whoever started us may ignore it, and so would the member. */
	signal(SIGTSTP, SIG_DFL);

	/* We are the reaper: orphans among our descendants become our
	 * children. */
	if (procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL) < 0) {
		printf("not applicable: there are no reapers\n");
		return 77;
	}

	/* A child in a group of its own has a child in a group of its
	 * own, and exits. */
	middle = fork();
	if (middle == 0) {
		setpgid(0, 0);
		if (fork() == 0) {
			setpgid(0, 0);
			member = getpid();
			write(ready[1], &member, sizeof(member));
			close(end[1]);
			/* until we have ended */
			read(end[0], &byte, 1);
			_exit(0);
		}
		/* until it is killed */
		read(end[0], &byte, 1);
		_exit(0);
	}
	if (read(ready[0], &member, sizeof(member)) != sizeof(member))
		err(2, "read");
	kill(middle, SIGKILL);
	if (waitpid(middle, &status, 0) != middle)
		err(2, "waitpid");

	/* We are the member's parent, in its session and in another
	 * group: what a terminal sends at ^Z stops it. */
	signal(SIGALRM, too_late);
	alarm(10);
	kill(member, SIGTSTP);
	if (waitpid(member, &status, WUNTRACED) != member ||
	    !WIFSTOPPED(status))
		errx(2, "the member has not stopped (status %x)",
		    (unsigned int)status);
	kill(member, SIGKILL);
	printf("right: the group is not orphaned, and stops\n");
	return 0;
}
