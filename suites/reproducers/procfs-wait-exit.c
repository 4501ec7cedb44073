/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whoever writes "wait" into /proc/N/ctl holds that process until it
 * stops.  If it exits instead, nobody wakes him, and it sleeps in its
 * exit for ever; neither signals nor anything else ends it but the
 * death of the waiter.  Any user.
 *
 *	cc procfs-wait-exit.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 procfs is
 * not mounted.
 */
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t waiter;

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: a process does not end, 10 s after SIGKILL, while "
	    "somebody waits for its stop\n";

	(void)signal;
	kill(waiter, SIGKILL);
	write(1, words, sizeof(words) - 1);
	_exit(1);
}

/* Where procfs is: at /proc, or mounted here. */
static const char *
procfs(void)
{
	int fd = open("/proc/curproc/status", O_RDONLY);

	if (fd >= 0) {
		close(fd);
		return "/proc";
	}
	mkdir("proc-here", 0755);
	if (mount("procfs", "proc-here", 0, NULL) < 0) {
		printf("not applicable: procfs is not mounted (be "
		       "root)\n");
		fflush(stdout);
		_exit(77);
	}
	return "proc-here";
}

int
main(void)
{
	int ready[2], end[2], status, fd;
	pid_t target;
	char byte, path[64];

	if (pipe(ready) < 0 || pipe(end) < 0)
		err(2, "pipe");

	/* A process, and another that waits for it to stop. */
	target = fork();
	if (target == 0) {
		close(end[1]);
		read(end[0], &byte, 1);
		_exit(0);
	}
	snprintf(path, sizeof(path), "%s/%d/ctl", procfs(), target);
	waiter = fork();
	if (waiter == 0) {
		close(end[1]);
		fd = open(path, O_WRONLY);
		write(ready[1], fd < 0 ? "-" : "x", 1);
		write(fd, "wait", 4);
		_exit(0);
	}
	read(ready[0], &byte, 1);
	if (byte == '-')
		errx(2, "%s cannot be opened", path);
	usleep(500000); /* there is no telling from here when its sleep
			   has begun */

	/* The first one is killed. */
	signal(SIGALRM, too_late);
	alarm(10);
	kill(target, SIGKILL);
	if (waitpid(target, &status, 0) != target)
		err(2, "waitpid");
	kill(waiter, SIGKILL);
	printf("right: the process has ended\n");
	return 0;
}
