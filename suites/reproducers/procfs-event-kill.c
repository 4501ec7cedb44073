/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process left at an event by its debugger (procfs, PF_LINGER) cannot
 * be killed: stopevent() sleeps without PCATCH. Any user.
 *
 *	cc procfs-event-kill.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 procfs is
 * not mounted.  With the defect a process remains that cannot be
 * killed.
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

static void
too_late(int signal)
{
	static const char words[] =
	    "DEFECT: a process at an event does not end, 10 s after "
	    "SIGKILL\n";

	(void)signal;
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
	struct procfs_status event;
	int end[2], status, fd;
	pid_t target;
	char byte, path[64];

	if (pipe(end) < 0)
		err(2, "pipe");
	target = fork();
	if (target == 0) {
		close(end[1]);
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* We debug it: it is to stop at signals, and to linger there
	 * when we close the file. */
	snprintf(path, sizeof(path), "%s/%d/mem", procfs(), target);
	fd = open(path, O_RDONLY);
	if (fd < 0 || ioctl(fd, PIOCSFL, PF_LINGER) < 0 ||
	    ioctl(fd, PIOCBIS, S_SIG) < 0)
		err(2, "%s", path);

	/* It meets a signal and stops there; we go away. */
	kill(target, SIGUSR1);
	if (ioctl(fd, PIOCWAIT, &event) < 0)
		err(2, "PIOCWAIT");
	close(fd);

	/* SIGKILL ends any process. */
	signal(SIGALRM, too_late);
	alarm(10);
	kill(target, SIGKILL);
	if (waitpid(target, &status, 0) != target)
		err(2, "waitpid");
	printf("right: the process has ended\n");
	return 0;
}
