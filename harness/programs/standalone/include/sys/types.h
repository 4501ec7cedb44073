/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_TYPES_H_
#define _SYS_TYPES_H_

typedef __UINT64_TYPE__ uint64_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __INT64_TYPE__ int64_t, id_t, off_t, time_t, suseconds_t, segsz_t;
typedef __INT32_TYPE__ pid_t, lwpid_t;
typedef __UINT32_TYPE__ uid_t, gid_t, dev_t;
typedef __UINT16_TYPE__ mode_t;
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
typedef __INTPTR_TYPE__ intptr_t, ssize_t;
typedef char *caddr_t;
typedef unsigned short u_short;
typedef unsigned int u_int;
typedef enum idtype { P_PID, P_PPID, P_PGID, P_JAILID = 12 } idtype_t;

#define NULL ((void *)0)

#endif
