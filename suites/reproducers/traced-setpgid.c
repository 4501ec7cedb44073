/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * While somebody traces a child, its parent cannot move it to another
 * process group (ESRCH), and the debugger, who is nobody to it, can:
 * inferior() takes the tracer for the parent.  Any user.
 *
 *	cc traced-setpgid.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	int traced[2], end[2], status, moved_by_debugger,
	    moved_by_parent;
	pid_t child;
	char byte;

	if (pipe(traced) < 0 || pipe(end) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* Another one attaches to it, and tries to move it: ESRCH, as
	 * it is no child of his. */
	if (fork() == 0) {
		close(end[1]);
		if (ptrace(PT_ATTACH, child, NULL, 0) < 0 ||
		    waitpid(child, &status, WUNTRACED) != child)
			_exit(2);
		moved_by_debugger = setpgid(child, child) == 0;
		write(traced[1], &moved_by_debugger, sizeof(int));
		read(end[0], &byte, 1);
		_exit(0);
	}
	close(traced[1]);
	if (read(traced[0], &moved_by_debugger, sizeof(int)) !=
	    sizeof(int))
		errx(2, "the child cannot be traced");

	/* Its parent moves it to a group of its own. */
	moved_by_parent = setpgid(child, child) == 0;
	if (moved_by_debugger)
		printf("DEFECT: a debugger can move its tracee to "
		       "another group\n");
	if (!moved_by_parent)
		printf("DEFECT: a parent cannot move its child while "
		       "that is traced\n");
	if (moved_by_debugger || !moved_by_parent)
		return 1;
	printf("right: the parent can move it, the debugger cannot\n");
	return 0;
}
