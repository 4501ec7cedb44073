/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two threads of a process go into two jails at the same time.  That
 * the process is in none is looked at before either has the lock of
 * the jails, so both are told that it is done; the second jail takes
 * the place of the first, which is never freed.  Root only; it takes
 * two CPUs.
 *
 *	cc jail-attach-twice.c && ./a.out		(as root)
 *
 * Exit status: 0 it has not happened, which on a machine with one CPU
 * says nothing, 1 the kernel has the defect, 77 it cannot be tried.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/jail.h>
#include <sys/lwp.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STACK = 65536, SECONDS = 60 };

/* extexit() ends a thread: <sys/unistd.h>. */
enum { EXTEXIT = 494, A_THREAD = 1 << 16 };

static char stack[STACK];
static volatile int here, entered, finished;

/* Go into jail JID when both threads are here; tell whether that was
 * done. */
static int
enter(int jid)
{
	__sync_fetch_and_add(&here, 1);
	while (here < 2)
		continue;
	return jail_attach(jid) == 0;
}

static void
second(void *jid)
{
	entered = enter((int)(long)jid);
	finished = 1;
	syscall(EXTEXIT, (long)A_THREAD, 0L, NULL);
}

/* A process that is in a jail of its own, and stays; its number goes to
 * JID. */
static pid_t
jailed(int *jid)
{
	struct jail wanted;
	int told[2];
	pid_t who;

	if (pipe(told) < 0)
		err(2, "pipe");
	who = fork();
	if (who < 0)
		err(2, "fork");
	if (who == 0) {
		memset(&wanted, 0, sizeof(wanted));
		wanted.version = 1;
		wanted.path = (char *)"/";
		wanted.hostname = (char *)"jail";
		*jid = jail(&wanted);
		write(told[1], jid, sizeof(*jid));
		for (;;)
			pause();
	}
	close(told[1]);
	if (read(told[0], jid, sizeof(*jid)) != sizeof(*jid))
		errx(2, "no answer");
	close(told[0]);
	return who;
}

int
main(void)
{
	struct lwp_params thread;
	struct timespec began, time;
	int first_jail, second_jail, mine, status, tries = 0;
	pid_t goer, first, other;

	first = jailed(&first_jail);
	other = jailed(&second_jail);
	if (first_jail < 0 || second_jail < 0) {
		kill(first, SIGKILL);
		kill(other, SIGKILL);
		printf("not applicable: be root\n");
		return 77;
	}
	clock_gettime(CLOCK_MONOTONIC, &began);
	do {
		goer = fork();
		if (goer == 0) {
			thread.lwp_func = second;
			thread.lwp_arg = (void *)(long)second_jail;
			thread.lwp_stack = stack + STACK - 8;
			thread.lwp_tid1 = thread.lwp_tid2 = NULL;
			if (lwp_create(&thread) < 0)
				_exit(2);
			mine = enter(first_jail);
			while (!finished)
				continue;
			_exit(mine && entered);
		}
		if (goer < 0 || waitpid(goer, &status, 0) != goer ||
		    !WIFEXITED(status) || WEXITSTATUS(status) > 1) {
			kill(first, SIGKILL);
			kill(other, SIGKILL);
			errx(2, "the process came to another end");
		}
		tries++;
		clock_gettime(CLOCK_MONOTONIC, &time);
	} while (WEXITSTATUS(status) == 0 &&
	    time.tv_sec < began.tv_sec + SECONDS);
	kill(first, SIGKILL);
	kill(other, SIGKILL);
	printf("two threads that go into jails at once, %d tries: %s\n",
	    tries,
	    WEXITSTATUS(status) ? "DEFECT: both are in" :
				  "right: one at most is in");
	return WEXITSTATUS(status);
}
