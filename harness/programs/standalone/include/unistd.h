/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _UNISTD_H_
#define _UNISTD_H_

#include <sys/types.h>

#define RFFDG (1 << 2)
#define RFPROC (1 << 4)
#define RFNOWAIT (1 << 6)
#define RFTHREAD (1 << 13)

__attribute__((noreturn)) void _exit(int status);
pid_t fork(void);
__attribute__((returns_twice)) pid_t vfork(void);
pid_t rfork(int flags);
int execve(const char *path, char *const argv[], char *const environment[]);
int execl(const char *path, const char *argument, ...);
ssize_t read(int fd, void *buffer, size_t size);
ssize_t write(int fd, const void *buffer, size_t size);
int close(int fd);
int pipe(int fds[2]);
int dup2(int old, int new);
int link(const char *old, const char *new);
int unlink(const char *path);
int rmdir(const char *path);
int chdir(const char *path);
pid_t getpid(void);
pid_t getppid(void);
uid_t getuid(void);
uid_t geteuid(void);
gid_t getegid(void);
int setuid(uid_t user);
int setgid(gid_t group);
int setreuid(uid_t real, uid_t effective);
int setresuid(uid_t real, uid_t effective, uid_t saved);
int getgroups(int count, gid_t groups[]);
int setgroups(int count, const gid_t groups[]);
pid_t getpgrp(void);
pid_t getpgid(pid_t pid);
pid_t getsid(pid_t pid);
int setpgid(pid_t pid, pid_t group);
pid_t setsid(void);
int setlogin(const char *name);
unsigned int alarm(unsigned int seconds);
int usleep(unsigned int microseconds);
int pause(void);
long syscall(int number, ...);

#endif
