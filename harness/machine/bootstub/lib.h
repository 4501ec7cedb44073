/* SPDX-License-Identifier: BSD-2-Clause */
/* What the boot stub and the accelerator probe share: ports, memory, and giving up with one line on COM1. */
#ifndef DFLY_HARNESS_LIB_H
#define DFLY_HARNESS_LIB_H

#include <stddef.h>
#include <stdint.h>

/* I/O ports: COM1, and QEMU's `-device isa-debug-exit,iobase=0xf4,iosize=0x04`. */
enum { COM1_DATA = 0x3f8, COM1_STATUS = 0x3fd, COM1_READY = 0x20, DEBUG_EXIT = 0xf4 };

static inline void
port_write8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void
port_write32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t
port_read8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

void print(const char *text);
void print_hex(uint64_t number);
void print_decimal(uint32_t number);

/* Ends the machine: QEMU's exit status becomes 2 * CODE + 1 if it has an isa-debug-exit device, otherwise the CPU halts. */
__attribute__((noreturn)) void leave(uint32_t code);

void *memcpy(void *to, const void *from, size_t length);
void *memset(void *to, int byte, size_t length);
int memcmp(const void *left, const void *right, size_t length);
size_t strlen(const char *text);

#endif
