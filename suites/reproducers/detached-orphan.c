/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When a debugger lets a process go whose parent has died meanwhile,
 * the process stays the debugger's child, instead of becoming its
 * reaper's (init's) as any other orphan.  Any user.
 *
 *	cc detached-orphan.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	int born[2], ask[2], answer[2], status;
	pid_t parent, child, found;
	char byte;

	if (pipe(born) < 0 || pipe(ask) < 0 || pipe(answer) < 0)
		err(2, "pipe");

	/* A parent has a child, which tells who its parent is when it
	 * is asked. */
	parent = fork();
	if (parent == 0) {
		child = fork();
		if (child == 0) {
			child = getpid();
			write(born[1], &child, sizeof(child));
			read(ask[0], &byte, 1);
			found = getppid();
			write(answer[1], &found, sizeof(found));
			_exit(0);
		}
		for (;;)
			pause();
	}
	if (read(born[0], &child, sizeof(child)) != sizeof(child))
		err(2, "read");

	/* We attach to the child; its parent dies. */
	if (ptrace(PT_ATTACH, child, NULL, 0) < 0 ||
	    waitpid(child, &status, WUNTRACED) != child)
		err(2, "PT_ATTACH");
	kill(parent, SIGKILL);
	if (waitpid(parent, &status, 0) != parent)
		err(2, "waitpid");

	/* We let the child go, and ask it. */
	ptrace(PT_DETACH, child, (caddr_t)1, 0);
	write(ask[1], "x", 1);
	if (read(answer[0], &found, sizeof(found)) != sizeof(found))
		err(2, "read");
	if (found == getpid()) {
		printf("DEFECT: the orphan %d is still the child of "
		       "%d, who was its debugger\n",
		    child, found);
		return 1;
	}
	printf("right: the orphan's parent is %d\n", found);
	return 0;
}
