/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _ERR_H_
#define _ERR_H_

__attribute__((noreturn, format(printf, 2, 3))) void err(int status, const char *format, ...);
__attribute__((noreturn, format(printf, 2, 3))) void errx(int status, const char *format, ...);

#endif
