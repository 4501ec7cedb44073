/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whoever may write to /proc/N/ctl ends the tracing of a process by
 * somebody else: "detach" does not ask who attached, as ptrace() does
 * (EBUSY).  Any user.
 *
 *	cc procfs-detach-by-anybody.c && ./a.out
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
#include <sys/ptrace.h>
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
	int traced[2], end[2], status, fd;
	pid_t child;
	char byte, path[64];

	if (pipe(traced) < 0 || pipe(end) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}

	/* A debugger attaches to the child. */
	if (fork() == 0) {
		close(end[1]);
		if (ptrace(PT_ATTACH, child, NULL, 0) < 0)
			_exit(2);
		waitpid(child, &status, WUNTRACED);
		write(traced[1], "x", 1);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	close(traced[1]);
	if (read(traced[0], &byte, 1) != 1)
		errx(2, "the child cannot be traced");

	/* We, who are not that debugger, detach it. */
	snprintf(path, sizeof(path), "%s/%d/ctl", procfs(), child);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		err(2, "%s", path);
	if (write(fd, "detach", 6) == 6) {
		printf("DEFECT: anybody ends a debugger's tracing\n");
		return 1;
	}
	printf("right: detach is refused, errno %d\n", errno);
	return 0;
}
