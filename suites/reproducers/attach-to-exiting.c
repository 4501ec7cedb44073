/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PT_ATTACH succeeds on a process that is exiting: it never makes the
 * stop that is promised, and its end is reported to the debugger
 * instead of its parent.  The process is kept in its exit here by
 * another one that waits for its stop by procfs.  Any user.
 *
 *	cc attach-to-exiting.c && ./a.out
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
#include <sys/kinfo.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
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

	/* It cannot stop any more, and is to be nobody: ESRCH. */
	result = ptrace(PT_ATTACH, target, NULL, 0);
	if (result == 0)
		printf("DEFECT: PT_ATTACH succeeds in an exit\n");
	else
		printf("right: PT_ATTACH fails, errno %d\n", errno);
	kill(holder, SIGKILL);
	return result == 0;
}
