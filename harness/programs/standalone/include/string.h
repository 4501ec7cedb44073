/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _STRING_H_
#define _STRING_H_

#include <sys/types.h>

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *left, const void *right, size_t size);
size_t strlen(const char *text);
int strcmp(const char *left, const char *right);
int strncmp(const char *left, const char *right, size_t size);
char *strcpy(char *to, const char *from);
char *strcat(char *to, const char *from);
char *strstr(const char *text, const char *wanted);

#endif
