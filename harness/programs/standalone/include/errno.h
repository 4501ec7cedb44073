/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _ERRNO_H_
#define _ERRNO_H_

extern int errno;

#define EPERM 1
#define ENOENT 2
#define ESRCH 3
#define EINTR 4
#define ECHILD 10
#define ENOMEM 12
#define EACCES 13
#define EFAULT 14
#define EBUSY 16
#define EEXIST 17
#define ENOTDIR 20
#define EINVAL 22
#define ENOTTY 25
#define EAGAIN 35
#define EOPNOTSUPP 45
#define ENAMETOOLONG 63
#define ENOSYS 78

#endif
