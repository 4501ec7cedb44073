/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PROC_REAP_KILL waits for the token of the next process to signal.  One
 * that gets another parent meanwhile, as somebody attaches to it or its
 * parent exits, is marked as not signalled (p_reaptid); it is signalled
 * then, marked again, and found to have another parent: the kernel
 * panics (assertion "cur->p_pptr == parent" in reaper_kill).  Any user;
 * it takes several CPUs.
 *
 *	cc reap-kill-reparented.c && ./a.out
 *
 * Exit status: 0 nothing has happened, which on a machine with one CPU
 * says nothing; 77 there is no PROC_REAP_KILL.  With the defect the
 * kernel panics.
 */
#include <err.h>
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

/* A reaper whose CHILDREN only wait; it tells their pids to whoever
 * reads ANSWER, and signals them all, again and again. */
static void
reaper(int answer, long until)
{
	struct reaper_kill wanted = {.signal = SIGURG}; /* is ignored */
	pid_t child[CHILDREN];
	int each;

	if (procctl(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL) < 0)
		_exit(77);
	for (each = 0; each < CHILDREN; each++) {
		child[each] = fork();
		if (child[each] == 0)
			for (;;)
				pause();
	}
	write(answer, child, sizeof(child));
	while (now() < until)
		if (procctl(P_PID, getpid(), PROC_REAP_KILL, &wanted) < 0)
			break;
	for (each = 0; each < CHILDREN; each++)
		kill(child[each], SIGKILL);
	_exit(now() < until ? 77 : 0);
}

int
main(void)
{
	long until = now() + SECONDS;
	int answer[2], each, status;
	pid_t child[CHILDREN], who;

	if (pipe(answer) < 0)
		err(2, "pipe");
	who = fork();
	if (who == 0)
		reaper(answer[1], until);
	close(answer[1]);
	if (read(answer[0], child, sizeof(child)) != sizeof(child) ||
	    waitpid(who, &status, WNOHANG) == who) {
		printf("not applicable: there are no reapers\n");
		return 77;
	}

	/* We attach to them meanwhile, and let them go. */
	for (each = 0; now() < until; each = (each + 1) % CHILDREN) {
		if (ptrace(PT_ATTACH, child[each], NULL, 0) < 0)
			continue;
		if (waitpid(child[each], &status, WUNTRACED) < 0)
			break;
		ptrace(PT_DETACH, child[each], (caddr_t)1, 0);
	}
	waitpid(who, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		printf("not applicable: there is no PROC_REAP_KILL\n");
		return 77;
	}
	printf("right: nothing has happened in %d s\n", SECONDS);
	return 0;
}
