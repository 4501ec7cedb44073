/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PROC_REAP_KILL looks at one of its flags and does not mind the
 * others: what will mean something one day is a signal today.  Any
 * user.
 *
 *	cc reap-kill-flags.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * PROC_REAP_KILL.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>
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

int
main(void)
{
	struct reaper_kill known = {.signal = SIGURG},
			   unknown = {.flags = 0x80, .signal = SIGURG};
	int end[2];
	char byte;

	/* We are a reaper with a child. */
	if (pipe(end) < 0)
		err(2, "pipe");
	procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL);
	if (fork() == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	if (procctl(P_PID, 0, PROC_REAP_KILL, &known) < 0) {
		printf("not applicable: no PROC_REAP_KILL\n");
		return 77;
	}

	/* Flag 0x80 means nothing: EINVAL. */
	if (procctl(P_PID, 0, PROC_REAP_KILL, &unknown) == 0) {
		printf("DEFECT: flag 0x80 is taken, %u signalled\n",
		    unknown.killed);
		return 1;
	}
	printf("right: flag 0x80 is refused, errno %d\n", errno);
	return 0;
}
