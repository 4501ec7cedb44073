/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * /proc/N/map is made up in a buffer of the kernel as large as the
 * reader says his own is.  One who says that he has room for a gigabyte
 * makes the kernel look for so much memory, and the machine hangs.  Any
 * user.
 *
 *	cc procfs-map-memory.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 77 procfs is not mounted.  A
 * machine with the defect and less than some gigabytes of memory hangs,
 * and nothing is printed.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/mount.h>
#include <sys/stat.h>
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

static char room[1 << 16];

int
main(void)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%d/map", procfs(), getpid());
	fd = open(path, O_RDONLY);
	if (fd < 0)
		err(2, "%s", path);

	/* What is read is short, however much room there is said to be.
	 */
	read(fd, room, 1 << 30);
	printf("right: the map has been read, or refused\n");
	return 0;
}
