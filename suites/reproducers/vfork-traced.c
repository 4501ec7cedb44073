/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parent of a vforked child sleeps until the child execs or exits.
 * If somebody traces the child by then, that one is woken in the
 * parent's stead, and the parent sleeps for ever; it cannot be killed.
 * Any user.
 *
 *	cc vfork-traced.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect; then a
 * process remains that cannot be killed.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: 10 s after its vforked child has exited, the "
	    "parent still sleeps\n";

	(void)signal;
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

static int born[2], go[2], back[2];

int
main(void)
{
	pid_t parent, child;
	char byte;

	if (pipe(born) < 0 || pipe(go) < 0 || pipe(back) < 0)
		err(2, "pipe");

	/* A parent makes a child by vfork(), and says when it is
	 * back. */
	parent = fork();
	if (parent == 0) {
		if (vfork() == 0) {
			child = getpid();
			write(born[1], &child, sizeof(child));
			read(go[0], &byte, 1);
			_exit(0);
		}
		write(back[1], "x", 1);
		_exit(0);
	}
	if (read(born[0], &child, sizeof(child)) != sizeof(child))
		err(2, "read");

	/* We attach to the child, and let it exit. */
	if (ptrace(PT_ATTACH, child, NULL, 0) < 0)
		err(2, "PT_ATTACH");
	write(go[1], "x", 1);

	/* The parent is to go on. */
	signal(SIGALRM, too_late);
	alarm(10);
	read(back[0], &byte, 1);
	printf("right: the parent goes on\n");
	return 0;
}
