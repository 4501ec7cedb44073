/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * setgroups() copies its list into the credentials themselves: when the
 * list lies half in memory that is not there, it fails with EFAULT, and
 * the first half is set, the effective group with it.
 *
 *	cc setgroups-half.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

int
main(void)
{
	gid_t before = getegid(), *groups;
	char *pages;

	if (getuid() != 0) {
		printf("not applicable: be root\n");
		return 77;
	}

	/* Two groups at the end of a page, and nothing behind it. */
	pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
	    MAP_ANON | MAP_PRIVATE, -1, 0);
	if (pages == MAP_FAILED || munmap(pages + PAGE, PAGE) < 0)
		err(2, "mmap");
	groups = (gid_t *)(void *)(pages + PAGE) - 2;
	groups[0] = 4711;
	groups[1] = 4712;

	/* We set sixteen groups from there. */
	if (setgroups(16, groups) != -1 || errno != EFAULT)
		err(2, "setgroups() does not fail with EFAULT");
	if (getegid() != before) {
		printf("DEFECT: setgroups() has failed, and the "
		       "effective group was %u and is %u\n",
		    before, getegid());
		return 1;
	}
	printf("right: the groups are what they were\n");
	return 0;
}
