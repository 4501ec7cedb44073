/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rename() refuses a directory's new name that ends with a slash:
 * ENOTDIR, although the new name is to be a directory (POSIX, 4.16
 * Pathname Resolution), as mkdir() has it.  Any user.
 *
 *	cc rename-directory-slash.c && ./a.out		(in a folder one
 * may write to)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/stat.h>
#include <unistd.h>

int
main(void)
{
	if (mkdir("old-name/", 0755) < 0)
		err(2, "mkdir");
	if (rename("old-name", "new-name/") < 0) {
		printf("DEFECT: rename(\"old-name\", \"new-name/\") of "
		       "a directory fails\n");
		rmdir("old-name");
		return 1;
	}
	rmdir("new-name");
	printf("right: the directory has been renamed\n");
	return 0;
}
