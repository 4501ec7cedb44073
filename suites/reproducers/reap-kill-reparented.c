/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PROC_REAP_KILL waits for the token of the next process to signal.
 * One that gets another parent meanwhile, as somebody attaches to it or
 * its parent exits, is marked as not signalled (p_reaptid); it is
 * signalled then, marked again, and found to have another parent: the
 * kernel panics (assertion "cur->p_pptr == parent" in reaper_kill).
 * Any user; it takes several CPUs.
 *
 *	cc reap-kill-reparented.c && ./a.out
 *
 * Exit status: 0 nothing has happened, which on a machine with one CPU
 * says nothing; 77 there is no PROC_REAP_KILL.  With the defect the
 * kernel panics.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
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

enum { CHILDREN = 4, SECONDS = 60 };

static long
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

/* End the NUMBER children in CHILD. */
static void
end(const pid_t *child, int number)
{
	while (number-- > 0)
		kill(child[number], SIGKILL);
}

/* A reaper whose CHILDREN only wait; it tells their pids to whoever
 * reads ANSWER, and signals them all, again and again. */
static void
reaper(int answer, long until)
{
	struct reaper_kill all = {.signal = SIGURG};
	pid_t child[CHILDREN];
	int each, failed = 0;

	if (procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL) < 0)
		_exit(77);
	for (each = 0; each < CHILDREN; each++) {
		child[each] = fork();
		if (child[each] < 0) {
			end(child, each);
			_exit(2);
		}
		if (child[each] == 0)
			for (;;)
				pause();
	}
	write(answer, child, sizeof(child));
	while (failed == 0 && now() < until)
		if (procctl(P_PID, getpid(), PROC_REAP_KILL, &all) < 0)
			failed = errno;
	end(child, CHILDREN);
	_exit(failed == 0 ? 0 : failed == EINVAL ? 77 : 2);
}

/* Attach to PID, and let it go when it has stopped.  Tell whether it
 * has; who is on his way out never does. */
static int
attach(pid_t pid)
{
	int how = WUNTRACED | WNOHANG, status, left = 1000;
	pid_t stopped;

	if (ptrace(PT_ATTACH, pid, NULL, 0) < 0)
		return 0;
	while ((stopped = waitpid(pid, &status, how)) == 0 &&
	    left-- > 0) {
		/* The signal may have taken the stop's place. */
		usleep(1000);
		kill(pid, SIGURG);
	}
	ptrace(PT_DETACH, pid, (caddr_t)1, 0);
	kill(pid, SIGCONT); /* No other stop is left to come. */
	return stopped == pid;
}

int
main(void)
{
	long until = now() + SECONDS;
	int answer[2], each, status, times = 0;
	pid_t child[CHILDREN], over = 0, who;

	if (pipe(answer) < 0)
		err(2, "pipe");
	who = fork();
	if (who < 0)
		err(2, "fork");
	if (who == 0)
		reaper(answer[1], until);
	close(answer[1]);
	if (read(answer[0], child, sizeof(child)) == sizeof(child)) {
		/* We attach to them meanwhile, and let them go. */
		for (each = 0; now() < until && over == 0; each++) {
			times += attach(child[each % CHILDREN]);
			over = waitpid(who, &status, WNOHANG);
		}
		end(child, CHILDREN);
	}
	if (over == 0)
		over = waitpid(who, &status, 0);
	if (over != who || !WIFEXITED(status) ||
	    (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 77))
		errx(2, "the reaper came to another end");
	if (WEXITSTATUS(status) == 77) {
		printf("not applicable: there is no PROC_REAP_KILL\n");
		return 77;
	}
	printf("right: nothing has happened in %d s, while we attached "
	       "%d times\n",
	    SECONDS, times);
	return 0;
}
