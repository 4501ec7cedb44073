/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * /proc/N/status is made up in 256 bytes, which sixteen groups with
 * large numbers overflow: the file of such a process cannot be read, or
 * is cut off.
 *
 *	cc status-of-many-groups.c && ./a.out		(as root, to
 * have the groups)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GROUPS = 16 };
static const gid_t first = 4000000000u;

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
	static char status[4096], number[16], path[64];
	gid_t groups[GROUPS];
	int each, ready[2], end[2], fd;
	ssize_t size;
	pid_t child;
	char byte;

	if (getuid() != 0) {
		printf("not applicable: be root\n");
		return 77;
	}

	/* A child is in sixteen groups, and another user. */
	for (each = 0; each < GROUPS; each++)
		groups[each] = first + each;
	if (pipe(ready) < 0 || pipe(end) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		close(end[1]);
		if (setgroups(GROUPS, groups) < 0 ||
		    setgid(first) < 0 ||
		    setresuid(first, first, first) < 0)
			_exit(2);
		write(ready[1], "x", 1);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		errx(2, "the child has not got its groups");

	/* Its status is to tell all of them. */
	snprintf(path, sizeof(path), "%s/%d/status", procfs(), child);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		err(2, "%s", path);
	size = read(fd, status, sizeof(status) - 1);
	if (size < 0) {
		printf("DEFECT: errno %d from reading the status\n",
		    errno);
		return 1;
	}
	for (each = 0; each < GROUPS; each++) {
		snprintf(number, sizeof(number), "%u", groups[each]);
		if (strstr(status, number) == NULL) {
			printf("DEFECT: the status has no group %s\n",
			    number);
			return 1;
		}
	}
	printf("right: the status has all groups\n");
	return 0;
}
