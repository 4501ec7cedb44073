/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_KINFO_H_
#define _SYS_KINFO_H_

#include <signal.h>
#include <sys/resource.h>

enum procstat { SIDL = 1, SACTIVE, SSTOP, SZOMB, SCORE };

/* What begins like this in every kernel since 2.0: what follows kp_sid has changed, and with it the size. */
struct kinfo_proc {
	uintptr_t kp_paddr;
	int kp_flags;
	enum procstat kp_stat;
	int kp_lock, kp_acflag, kp_traceflag;
	uintptr_t kp_fd;
	sigset_t kp_siglist, kp_sigignore, kp_sigcatch;
	int kp_sigflag;
	struct timeval kp_start;
	char kp_comm[17];
	uid_t kp_uid;
	short kp_ngroups;
	gid_t kp_groups[16];
	uid_t kp_ruid, kp_svuid;
	gid_t kp_rgid, kp_svgid;
	pid_t kp_pid, kp_ppid, kp_pgid;
	int kp_jobc;
	pid_t kp_sid;
	char rest[4096];
};

#endif
