/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kern.proc.cwd tells the path of a directory that has been removed,
 * also when there is another of that name.  Any user.
 *
 *	cc removed-directory.c && ./a.out		(in a folder one
 * may write to)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	int in_it[2], end[2],
	    name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_CWD, 0};
	static char path[1024];
	size_t size = sizeof(path) - 1;
	pid_t child;
	char byte;

	if (pipe(in_it) < 0 || pipe(end) < 0 ||
	    mkdir("removed-folder", 0755) < 0)
		err(2, "mkdir");

	/* A child goes into a folder, which is removed. */
	child = fork();
	if (child == 0) {
		close(end[1]);
		chdir("removed-folder");
		write(in_it[1], "x", 1);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	read(in_it[0], &byte, 1);
	if (rmdir("removed-folder") < 0)
		err(2, "rmdir");

	/* Where is it? */
	name[3] = child;
	if (sysctl(name, 4, path, &size, NULL, 0) == 0 &&
	    strlen(path) > 0) {
		printf("DEFECT: it is said to be in %s, now gone\n",
		    path);
		return 1;
	}
	printf("right: its folder has no name\n");
	return 0;
}
