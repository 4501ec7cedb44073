/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The title that a process has written into its shared page
 * (/dev/upmap, what setproctitle() uses) stays when it execs: the new
 * program is shown by the title of the old one.  Any user.
 *
 *	cc title-outlives-exec.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * such page.
 */
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* The page begins with entries of a type and an offset: sys/upmap.h. */
enum { MAP_SIZE = 65536, TITLE = 0x0a13 };
struct entry {
	unsigned short type, offset;
};

/* Write the arguments of PID into ROOM. */
static void
arguments_of(pid_t pid, char *room, size_t size)
{
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_ARGS, pid};

	memset(room, 0, size);
	if (sysctl(name, 4, room, &size, NULL, 0) < 0)
		err(2, "kern.proc.args");
}

int
main(void)
{
	static char room[4096], program[4096];
	int titled[2], go[2], fd, tries, status;
	struct entry *each;
	pid_t child;
	char byte, *page;

	if (pipe(titled) < 0 || pipe(go) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		/* A child has a title, and runs another program. */
		fd = open("/dev/upmap", O_RDWR);
		page = mmap(NULL, MAP_SIZE, PROT_READ | PROT_WRITE,
		    MAP_SHARED, fd, 0);
		if (fd < 0 || page == MAP_FAILED)
			_exit(77);
		for (each = (struct entry *)page; each->type != TITLE;
		    each++)
			if (each->type == 0)
				_exit(77);
		strcpy(page + each->offset, "the old program");
		write(titled[1], "x", 1);
		read(go[0], &byte, 1);
		execl("/bin/sleep", "sleep", "1000", (char *)NULL);
		_exit(2);
	}
	close(titled[1]);
	if (read(titled[0], &byte, 1) != 1) {
		printf("not applicable: there is no page of a title\n");
		return 77;
	}
	arguments_of(child, room, sizeof(room));
	if (strcmp(room, "the old program") != 0)
		errx(2, "the title is not shown");
	write(go[1], "x", 1);

	/* Until the new program runs. */
	for (tries = 0; tries < 100; tries++) {
		int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME,
		    child};
		size_t size = sizeof(program);

		if (sysctl(name, 4, program, &size, NULL, 0) == 0 &&
		    strstr(program, "sleep") != NULL)
			break;
		usleep(100000);
	}
	usleep(100000);
	arguments_of(child, room, sizeof(room));
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	if (tries == 100)
		errx(2, "the program does not run");
	if (strcmp(room, "sleep") != 0) {
		printf("DEFECT: sleep is shown as \"%s\"\n", room);
		return 1;
	}
	printf("right: sleep is shown as itself\n");
	return 0;
}
