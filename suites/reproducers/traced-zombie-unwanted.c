/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A parent that ignores SIGCHLD wants no zombies, and is given one back
 * by the debugger of its child: it stays as long as the parent lives.
 * Any user.
 *
 *	cc traced-zombie-unwanted.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	int go[2], done[2], end[2], status;
	pid_t child;
	char byte;

	if (pipe(go) < 0 || pipe(done) < 0 || pipe(end) < 0)
		err(2, "pipe");
	signal(SIGCHLD, SIG_IGN);
	child = fork();
	if (child == 0) {
		read(go[0], &byte, 1);
		_exit(3);
	}

	/* Another one traces it, lets it exit, and waits for it. */
	if (fork() == 0) {
		close(end[1]);
		if (ptrace(PT_ATTACH, child, NULL, 0) < 0 ||
		    waitpid(child, &status, WUNTRACED) != child)
			_exit(2);
		ptrace(PT_CONTINUE, child, (caddr_t)1, 0);
		write(go[1], "x", 1);
		waitpid(child, &status, 0);
		write(done[1], "x", 1);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	close(done[1]);
	if (read(done[0], &byte, 1) != 1)
		errx(2, "the child cannot be traced");

	/* We have no zombie: kill() knows no such process. */
	if (kill(child, 0) == 0) {
		printf("DEFECT: the child, %d, is still a zombie\n",
		    child);
		return 1;
	}
	if (errno != ESRCH)
		err(2, "kill");
	printf("right: the child is gone\n");
	return 0;
}
