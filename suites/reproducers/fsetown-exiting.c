/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * F_SETOWN takes a process that is exiting and has let go of its
 * descriptors already: the descriptor keeps the address of memory that
 * is freed with the process, and closing it later panics the kernel.
 * Any user.  This program stops short of that.
 *
 *	cc fsetown-exiting.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it
 * cannot be tried.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/kinfo.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
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

/* Wait until PID exits: P_WEXIT is 0x2000. */
static void
await_exit(pid_t pid)
{
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, pid};
	static union {
		struct kinfo_proc process;
		char room[8192];
	} answer;
	size_t size;

	do {
		size = sizeof(answer);
		if (sysctl(name, 4, &answer, &size, NULL, 0) < 0 ||
		    size == 0)
			errx(77, "it cannot be held: it has ended");
	} while ((answer.process.kp_flags & 0x2000) == 0);
	/* It sleeps there; there is no telling when that has begun. */
	usleep(200000);
}

int
main(void)
{
	int ready[2], end[2], fd, result;
	pid_t target, holder;
	char byte, path[64];

	if (pipe(ready) < 0 || pipe(end) < 0)
		err(2, "pipe");
	target = fork();
	if (target == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* Another one waits for its stop by procfs, which holds it. */
	snprintf(path, sizeof(path), "%s/%d/ctl", procfs(), target);
	holder = fork();
	if (holder == 0) {
		fd = open(path, O_WRONLY);
		write(ready[1], "x", 1);
		write(fd, "wait", 4);
		_exit(0);
	}
	read(ready[0], &byte, 1);
	/* there is no telling from here when its sleep has begun */
	usleep(500000);

	/* The first one is killed, and stays in its exit. */
	kill(target, SIGKILL);
	await_exit(target);

	/* It is to be nobody any more: ESRCH. */
	result = fcntl(ready[0], F_SETOWN, target);
	if (result == 0) {
		/* The owner is taken back, before anything is freed. */
		fcntl(ready[0], F_SETOWN, 0);
		printf("DEFECT: who is exiting owns a descriptor\n");
	} else {
		printf("right: F_SETOWN fails, errno %d\n", errno);
	}
	kill(holder, SIGKILL);
	return result == 0;
}
