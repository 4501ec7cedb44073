/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Several threads of a process wait for children at once: one gives up
 * its hold of a zombie before that is off the list, another one comes
 * upon it, and the kernel panics.  Any user; it takes several CPUs.
 *
 *	cc threads-wait-at-once.c && ./a.out
 *
 * A kernel that has the defect panics before anything is printed.  If
 * the program ends, its exit status is 0: the panic has not happened,
 * which on a machine with one CPU says nothing.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/lwp.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 20, THREADS = 4, CHILDREN = 100, STACK = 65536 };

/* extexit() ends a thread: <sys/unistd.h>. */
enum { EXTEXIT = 494, A_THREAD = 1 << 16 };

static char stacks[THREADS][STACK];
static volatile int finished[THREADS];

/* A thread that waits for children until there are none. */
static void
reap(void *mine)
{
	int status;

	while (wait4(-1, &status, 0, NULL) > 0)
		;
	*(volatile int *)mine = 1;
	syscall(EXTEXIT, (long)A_THREAD, 0L, NULL);
}

/* Ask for all processes, over and over, which holds each a moment. */
static void
look(void)
{
	int name[3] = {CTL_KERN, KERN_PROC, KERN_PROC_ALL};
	static char room[1 << 20];
	size_t size;

	for (;;) {
		size = sizeof(room);
		sysctl(name, 3, room, &size, NULL, 0);
	}
}

static void
round_of(void)
{
	struct lwp_params thread;
	int each, end[2];
	char byte;

	if (pipe(end) < 0)
		err(2, "pipe");
	for (each = 0; each < CHILDREN; each++)
		if (fork() == 0) {
			close(end[1]);
			/* until all may go */
			read(end[0], &byte, 1);
			_exit(0);
		}
	for (each = 0; each < THREADS; each++) {
		finished[each] = 0;
		thread.lwp_func = reap;
		thread.lwp_arg = (void *)&finished[each];
		thread.lwp_stack = stacks[each] + STACK - 8;
		thread.lwp_tid1 = thread.lwp_tid2 = NULL;
		if (lwp_create(&thread) < 0)
			err(2, "lwp_create");
	}

	/* All of them end at once. */
	close(end[1]);
	for (each = 0; each < THREADS; each++)
		while (!finished[each])
			usleep(1000);
	close(end[0]);
	/* the threads are about to be gone: their stacks are used
	 * again */
	usleep(100000);
}

int
main(void)
{
	pid_t looker, parent;
	int number, status;

	looker = fork();
	if (looker == 0)
		look();
	parent = fork();
	if (parent == 0) {
		for (number = 0; number < ROUNDS; number++)
			round_of();
		_exit(0);
	}
	if (waitpid(parent, &status, 0) != parent || status != 0)
		errx(2, "the threads have not ended");
	kill(looker, SIGKILL);
	printf("right: %d children were reaped by %d threads, and "
	       "nothing happened\n",
	    ROUNDS * CHILDREN, THREADS);
	return 0;
}
