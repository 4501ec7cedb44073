/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The list of jails (sysctl jail.list) is written into 1024 bytes for
 * each jail.  Where a jail's path and name are longer, the length that
 * ksnprintf() would have needed is taken for what it has written, and
 * what lies behind the buffer in the kernel's memory is handed out.
 *
 *	cc jail-list-overrun.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/jail.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEEP = 4, LONG = 200 };

int
main(void)
{
	static char folder[2048], host[256];
	static char listed[8192], expected[4096];
	size_t length[DEEP + 1], size, same, read_of_it;
	struct jail wanted;
	int each, status, made[2];
	pid_t jailed;

	size = sizeof(listed);
	if (sysctlbyname("jail.list", listed, &size, NULL, 0) < 0 ||
	    size != 0) {
		printf("not applicable: there are jails already\n");
		return 77;
	}

	/* A path of 800 bytes, and a name of 255. */
	strcpy(folder, "/tmp/jail-list");
	for (each = 0; each <= DEEP; each++) {
		length[each] = strlen(folder);
		if (mkdir(folder, 0755) < 0)
			err(2, "%s", folder);
		folder[length[each]] = '/';
		memset(folder + length[each] + 1, 'a' + each, LONG);
	}
	folder[length[DEEP]] = '\0';
	memset(host, 'h', sizeof(host) - 1);
	memset(&wanted, 0, sizeof(wanted));
	wanted.version = 1;
	wanted.path = folder;
	wanted.hostname = host;

	/* A child goes into a jail there, and stays until we end. */
	if (pipe(made) < 0)
		err(2, "pipe");
	jailed = fork();
	if (jailed == 0) {
		each = jail(&wanted);
		if (each > 0)
			write(made[1], &each, sizeof(each));
		for (; each > 0;)
			pause();
		_exit(77);
	}
	close(made[1]);
	size = sizeof(listed);
	read_of_it = read(made[0], &each, sizeof(each));
	if (read_of_it == sizeof(each))
		sysctlbyname("jail.list", listed, &size, NULL, 0);

	/* It goes, and so do the folders. */
	kill(jailed, SIGKILL);
	waitpid(jailed, &status, 0);
	snprintf(expected, sizeof(expected), "%d %s %s", each, host,
	    folder);
	for (each = DEEP; each >= 0; each--) {
		folder[length[each]] = '\0';
		rmdir(folder);
	}
	if (read_of_it != sizeof(each)) {
		printf("not applicable: be root\n");
		return 77;
	}

	/* It is to say that there was one jail, or a part of that, and
	 * no more. */
	for (same = 0; same < size && listed[same] == expected[same];
	    same++)
		;
	if (size > same + 1) {
		printf("DEFECT: the list has %d bytes behind the %d of "
		       "its text\n",
		    (int)(size - same), (int)same);
		return 1;
	}
	printf("right: the list of jails ends where it ends\n");
	return 0;
}
