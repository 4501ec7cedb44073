/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kill() finds a zombie without asking whose it is: of another user's
 * process one is told EPERM while it lives, and success when it has
 * exited.
 *
 *	cc zombie-kill-permission.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Wait until PID has exited: kern.proc.pid knows no zombies. */
static void
await_end(pid_t pid)
{
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, pid};
	static char room[8192];
	size_t size;

	do
		size = sizeof(room);
	while (sysctl(name, 4, room, &size, NULL, 0) == 0 && size > 0);
}

int
main(void)
{
	int ready[2], go[2], status;
	pid_t victim, user;
	char byte;

	if (getuid() != 0) {
		printf("not applicable: be root\n");
		return 77;
	}
	if (pipe(ready) < 0 || pipe(go) < 0)
		err(2, "pipe");

	/* A process of one user, which exits when it is told to. */
	victim = fork();
	if (victim == 0) {
		setuid(61002);
		write(ready[1], "x", 1);
		read(go[0], &byte, 1);
		_exit(0);
	}
	read(ready[0], &byte, 1);

	/* Another user may not signal it: EPERM, before and after. */
	user = fork();
	if (user == 0) {
		setuid(61001);
		if (kill(victim, 0) != -1 || errno != EPERM)
			_exit(2);
		write(go[1], "x", 1);
		await_end(victim);
		_exit(kill(victim, 0) != -1);
	}
	if (waitpid(user, &status, 0) != user || !WIFEXITED(status))
		err(2, "waitpid");
	if (WEXITSTATUS(status) == 1)
		printf("DEFECT: anybody may signal a zombie\n");
	else
		printf("right: EPERM before and after\n");
	return WEXITSTATUS(status);
}
