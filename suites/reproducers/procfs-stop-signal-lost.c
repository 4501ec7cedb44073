/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing wait into /proc/N/ctl of a stopped process clears the signal
 * that stopped it: its parent is told of a stop by signal 0.  Any user.
 *
 *	cc procfs-stop-signal-lost.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 procfs is
 * not mounted.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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
		printf("not applicable: procfs is not mounted\n");
		fflush(stdout);
		_exit(77);
	}
	return "proc-here";
}

int
main(void)
{
	int end[2], status, fd;
	pid_t child;
	char byte, path[64];

	if (pipe(end) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* The child is stopped. */
	kill(child, SIGSTOP);
	snprintf(path, sizeof(path), "%s/%d/ctl", procfs(), child);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		err(2, "%s", path);

	/* Somebody asks procfs to wait for its stop. */
	if (write(fd, "wait", 4) < 0)
		err(2, "write");
	close(fd);

	/* Its parent is told by which signal it has stopped. */
	if (waitpid(child, &status, WUNTRACED) != child)
		err(2, "waitpid");
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP) {
		printf("DEFECT: it has stopped by %d\n",
		    WSTOPSIG(status));
		return 1;
	}
	printf("right: wait tells SIGSTOP\n");
	return 0;
}
