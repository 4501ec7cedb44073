/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process title that is too long is dropped, and success reported
 * (kern.proc.args).  Any user.
 *
 *	cc title-too-long.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/sysctl.h>
#include <unistd.h>

int
main(void)
{
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_ARGS, getpid()};
	static char title[300], found[4096];
	size_t size = sizeof(found);

	/* We set a title of 299 bytes. */
	memset(title, 't', sizeof(title) - 1);
	if (sysctl(name, 4, NULL, NULL, title, sizeof(title)) < 0) {
		printf("right: a title that is too long is refused\n");
		return 0;
	}

	/* That was a success: now we are called so. */
	if (sysctl(name, 4, found, &size, NULL, 0) < 0)
		err(2, "kern.proc.args");
	if (size < sizeof(title) - 1 ||
	    memcmp(found, title, sizeof(title) - 1) != 0) {
		printf("DEFECT: the title was not kept, and success "
		       "reported\n");
		return 1;
	}
	printf("right: the title was kept\n");
	return 0;
}
