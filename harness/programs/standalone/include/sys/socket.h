/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_SOCKET_H_
#define _SYS_SOCKET_H_

#define AF_INET 2
#define SOCK_RAW 3

int socket(int domain, int type, int protocol);

#endif
