/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kern.proc.pathname tells the path of a program that has been removed,
 * also when there is another file of that name: who trusts it runs
 * somebody else's.  Any user.
 *
 *	cc removed-program.c && ./a.out		(in a folder one may
 * write to)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Write what PID's program is into PATH, and tell how long that is. */
static size_t
program_of(pid_t pid, char *path, size_t size)
{
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME, pid};

	path[0] = '\0';
	if (sysctl(name, 4, path, &size, NULL, 0) < 0)
		return 0;
	return strlen(path);
}

int
main(void)
{
	static char path[1024], piece[65536];
	int from, to, tries, status;
	ssize_t size;
	pid_t child;

	/* A program of our own: a copy of /bin/sleep. */
	from = open("/bin/sleep", O_RDONLY);
	to = open("removed-sleep", O_WRONLY | O_CREAT, 0755);
	if (from < 0 || to < 0)
		err(2, "removed-sleep");
	while ((size = read(from, piece, sizeof(piece))) > 0)
		write(to, piece, size);
	close(from);
	close(to);

	/* A child runs it. */
	child = fork();
	if (child == 0) {
		execl("./removed-sleep", "sleep", "1000", (char *)NULL);
		_exit(2);
	}
	for (tries = 0; tries < 100; tries++) {
		program_of(child, path, sizeof(path));
		if (strstr(path, "removed-sleep") != NULL)
			break;
		usleep(100000);
	}
	if (tries == 100)
		errx(2, "the child does not run the program");

	/* It is removed, and somebody else's file has its name. */
	unlink("removed-sleep");
	close(open("removed-sleep", O_WRONLY | O_CREAT, 0644));
	size = program_of(child, path, sizeof(path));
	unlink("removed-sleep");
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	if (size > 0) {
		printf("DEFECT: the program is said to be %s, which is "
		       "another file\n",
		    path);
		return 1;
	}
	printf("right: the program has no path any more\n");
	return 0;
}
