/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SIGNAL_H_
#define _SIGNAL_H_

#include <sys/types.h>
#include <time.h>

#define SIGQUIT 3
#define SIGKILL 9
#define SIGSYS 12
#define SIGALRM 14
#define SIGTERM 15
#define SIGURG 16
#define SIGSTOP 17
#define SIGTSTP 18
#define SIGCONT 19
#define SIGCHLD 20
#define SIGUSR1 30
#define SIGUSR2 31

typedef struct __sigset {
	uint32_t bits[4];
} sigset_t;
union sigval {
	int sival_int;
	void *sival_ptr;
};
typedef struct __siginfo {
	int si_signo, si_errno, si_code;
	pid_t si_pid;
	uid_t si_uid;
	int si_status;
	void *si_addr;
	union sigval si_value;
	long si_band;
	int spare[7];
} siginfo_t;
enum { CLD_EXITED = 1, CLD_KILLED, CLD_DUMPED, CLD_TRAPPED, CLD_STOPPED, CLD_CONTINUED };

typedef struct sigaltstack {
	void *ss_sp;
	size_t ss_size;
	int ss_flags;
} stack_t;
#define SS_ONSTACK 0x01
#define SS_DISABLE 0x04

struct sigaction {
	union {
		void (*handler)(int);
		void (*action)(int, siginfo_t *, void *);
	} of;
	int sa_flags;
	sigset_t sa_mask;
};
#define sa_handler of.handler
#define sa_sigaction of.action
#define SA_ONSTACK 0x01
#define SA_RESTART 0x02
#define SA_SIGINFO 0x40
#define SA_NOCLDSTOP 0x08
#define SIG_DFL ((void (*)(int))0)
#define SIG_IGN ((void (*)(int))1)
#define SIG_ERR ((void (*)(int))-1)
#define SIG_BLOCK 1
#define SIG_UNBLOCK 2
#define SIG_SETMASK 3

int kill(pid_t pid, int signal);
int killpg(pid_t group, int signal);
void (*signal(int signal, void (*handler)(int)))(int);
int sigaction(int signal, const struct sigaction *wanted, struct sigaction *old);
int sigprocmask(int how, const sigset_t *wanted, sigset_t *old);
int sigpending(sigset_t *pending);
int sigsuspend(const sigset_t *mask);
int sigtimedwait(const sigset_t *wanted, siginfo_t *info, const struct timespec *time);
int sigaltstack(const stack_t *wanted, stack_t *old);
int sigemptyset(sigset_t *set);
int sigfillset(sigset_t *set);
int sigaddset(sigset_t *set, int signal);
int sigismember(const sigset_t *set, int signal);

#endif
