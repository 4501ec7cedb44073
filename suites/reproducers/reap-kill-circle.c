/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A reaper that is traced by its own child is its own descendant, and
 * PROC_REAP_KILL, which descends along p_children, runs in a circle for
 * ever.  Any user.
 *
 *	cc reap-kill-circle.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * PROC_REAP_KILL.  With the defect one process runs in the kernel for
 * ever: on a machine with one CPU nothing else runs any more, and
 * nothing is printed.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PROC_REAP_KILL
#define PROC_REAP_KILL 6
struct reaper_kill {
	uint32_t flags;
	int signal;
	uint32_t killed;
	pid_t pid_failed;
};
#endif

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: PROC_REAP_KILL has not returned in 20 seconds\n";

	(void)signal;
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

int
main(void)
{
	struct reaper_kill wanted = {.signal = SIGURG};
	int traced[2], done[2], end[2], result, status;
	char byte;

	if (pipe(traced) < 0 || pipe(done) < 0 || pipe(end) < 0)
		err(2, "pipe");
	signal(SIGALRM, too_late);
	alarm(20);

	if (fork() == 0) {
		close(end[1]);
		/* A reaper with a child. */
		procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL);
		if (fork() == 0) {
			/* The child attaches to its parent, the reaper,
			 * and lets it run on. */
			if (ptrace(PT_ATTACH, getppid(), NULL, 0) ==
			    0) {
				waitpid(getppid(), &status, WUNTRACED);
				ptrace(PT_CONTINUE, getppid(),
				    (caddr_t)1, 0);
			}
			write(traced[1], "x", 1);
			/* until all has ended */
			read(end[0], &byte, 1);
			_exit(0);
		}
		read(traced[0], &byte, 1);

		/* The reaper signals its descendant, once. */
		result = procctl(P_PID, 0, PROC_REAP_KILL, &wanted);
		write(done[1], &result, sizeof(result));
		read(end[0], &byte, 1);
		_exit(0);
	}
	if (read(done[0], &result, sizeof(result)) != sizeof(result))
		err(2, "read");
	if (result < 0) {
		printf("not applicable: there is no PROC_REAP_KILL\n");
		return 77;
	}
	printf("right: PROC_REAP_KILL has returned\n");
	return 0;
}
