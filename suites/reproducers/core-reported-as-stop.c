/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * While a child writes its core it is reported as stopped, by signal 0,
 * to a parent that waits with WUNTRACED.  The child is kept there by
 * procfs.  Any user.
 *
 *	cc core-reported-as-stop.c && ./a.out
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
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pioctl.h>
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
	struct procfs_status event;
	int end[2], status = 0, fd;
	pid_t child, found;
	char byte, path[64];

	if (pipe(end) < 0)
		err(2, "pipe");
	/* Whoever started us may ignore it, and so would the child. */
	signal(SIGQUIT, SIG_DFL);
	child = fork();
	if (child == 0) {
		close(end[1]);
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* It is to pause when it is about to write its core. */
	snprintf(path, sizeof(path), "%s/%d/mem", procfs(), child);
	fd = open(path, O_RDONLY);
	if (fd < 0 || ioctl(fd, PIOCBIS, S_CORE) < 0)
		err(2, "%s", path);
	kill(child, SIGQUIT);
	if (ioctl(fd, PIOCWAIT, &event) < 0)
		err(2, "PIOCWAIT");

	/* It is dying, and has not stopped. */
	found = waitpid(child, &status, WNOHANG | WUNTRACED);
	close(fd);
	if (found == child) {
		printf("DEFECT: the child that is writing its core is "
		       "reported: status %x, stopped by signal %d\n",
		    (unsigned int)status, WSTOPSIG(status));
		return 1;
	}
	if (waitpid(child, &status, WUNTRACED) != child ||
	    !WIFSIGNALED(status))
		errx(2, "the child has not died of its signal");
	printf("right: the child's death is reported alone\n");
	return 0;
}
