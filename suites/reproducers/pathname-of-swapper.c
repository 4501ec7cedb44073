/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kern.proc.pathname of process 0, which runs no program, counts a
 * reference to a mount at NULL: the kernel panics.  Any user.
 *
 *	cc pathname-of-swapper.c && ./a.out
 *
 * A kernel that has the defect panics before anything is printed.  If
 * the program ends, its exit status is 0: the kernel is right.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 8 };

int
main(void)
{
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME, 0};
	static char path[1024];
	size_t size = sizeof(path);
	int each, status;

	/* A reference that fails to be counted goes unnoticed while the
	 * kernel's cache of references has room: processes that end
	 * fill it with those of their directories. */
	for (each = 0; each < CHILDREN; each++)
		if (fork() == 0)
			_exit(0);
	for (each = 0; each < CHILDREN; each++)
		if (wait(&status) < 0)
			err(2, "wait");

	if (sysctl(name, 4, path, &size, NULL, 0) == 0)
		printf("right: process 0 runs \"%s\"\n", path);
	else
		printf("right: errno %d\n", errno);
	return 0;
}
