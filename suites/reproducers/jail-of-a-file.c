/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * jail() of a file is refused, and keeps a reference to it: the file
 * system it is on can never be unmounted again.
 *
 *	cc jail-of-a-file.c && ./a.out		(as root, in a folder
 * one may write to)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/jail.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

int
main(void)
{
	struct jail wanted;

	memset(&wanted, 0, sizeof(wanted));
	wanted.version = 1;
	wanted.path = (char *)"mounted-here/1/status";
	wanted.hostname = (char *)"jail";

	/* A file system is mounted: procfs, of which only we know. */
	mkdir("mounted-here", 0755);
	if (mount("procfs", "mounted-here", 0, NULL) < 0) {
		rmdir("mounted-here");
		printf("not applicable: nothing can be mounted (be "
		       "root)\n");
		return 77;
	}

	/* A file of it is nothing to be jailed in. */
	if (jail(&wanted) >= 0 || errno != ENOTDIR)
		err(2, "jail() of a file is not refused as it ought");

	/* It is unmounted. */
	if (unmount("mounted-here", 0) < 0) {
		printf("DEFECT: errno %d from unmount(): the jail that "
		       "was refused keeps the file system busy\n",
		    errno);
		unmount("mounted-here", MNT_FORCE);
		rmdir("mounted-here");
		return 1;
	}
	rmdir("mounted-here");
	printf("right: the file system is unmounted\n");
	return 0;
}
