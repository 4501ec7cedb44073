/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_JAIL_H_
#define _SYS_JAIL_H_

#include <sys/types.h>

struct sockaddr_storage;
struct jail {
	uint32_t version;
	char *path, *hostname;
	uint32_t n_ips;
	struct sockaddr_storage *ips;
};

int jail(struct jail *jail);
int jail_attach(int jid);

#endif
