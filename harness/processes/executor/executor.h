/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The executor: a small program inside the guest that makes raw system calls on request.
 *
 * There is no C library below it: libc caches getpid(), wraps wait() and allocates memory, and each of these would stand
 * between a test and the kernel.  start.c enters it, hub.c is the process the host talks to, driven.c serves requests in
 * a driven process, bulk.c does at full speed what would take too many round trips.
 */
#ifndef EXECUTOR_H
#define EXECUTOR_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef int i32;
typedef long i64;

#define NULL ((void *)0)
#define NORETURN __attribute__((noreturn))
#define UNUSED __attribute__((unused))

#if defined(ABI_DRAGONFLY)
#include "abi_dragonfly.h"
#elif defined(ABI_LINUX)
#include "abi_linux.h"
#else
#error "define ABI_DRAGONFLY or ABI_LINUX"
#endif

/* The same everywhere but for the two bytes that BSD calls length and family and Linux only family. */
enum { IPPROTO_TCP = 6, TCP_NODELAY = 1 };

struct sockaddr_in {
	u8 family[2];
	u8 port[2]; /* big-endian */
	u32 host; /* 0: any */
	u64 zero;
};

/* ---- Wire format (harness/processes/wire.py says the same in Python) ---- */

enum { CONTROL_ID = 0xffffffffu, HUB_ID = 0, FIRST_ID = 1, CHUNK = 32768 };

/* Between hub and host: frames of length and process id, then LENGTH bytes of that process's stream. */
struct frame {
	u32 length;
	u32 id;
};

/* Control frames carry one of these. */
enum event_kind { EVENT_READY = 1, EVENT_HELLO = 2, EVENT_GONE = 3 };
enum order_kind { ORDER_CLOSE = 1, ORDER_AWAIT = 2, ORDER_FREE = 3 };

struct event {
	u32 kind;
	u32 id;
	i32 pid;
	i32 tid;
};

/* First words on a new connection: the id from whoever opened it, then pid and tid from whoever uses it. */
struct hello {
	u32 id;
	i32 pid;
	i32 tid;
};

struct request {
	u32 length; /* of the payload */
	u32 sequence;
	u32 operation;
};

enum operation {
	OP_SYSCALL = 1,
	OP_BRANCH = 2,
	OP_SIGACTION = 3,
	OP_SIGNALS = 4,
	OP_THREAD = 5,
	OP_LEAVE = 6,
	OP_TOUCH = 7,
	OP_REEXEC = 8,
	OP_STORM = 9,
	OP_SPAWN_MANY = 10,
	OP_REPEAT = 11,
};

/* An answer; LENGTH counts what follows the first two words, and the data follows the whole. */
struct answer {
	u32 length;
	u32 sequence;
	i32 error; /* the kernel's errno, 0 for success */
	u32 note;  /* NOTE_*: where the error comes from */
	i64 value;
	i64 second; /* %rdx, the second value of pipe() and fork() on BSD */
	u64 before; /* CLOCK_MONOTONIC around the call, ns */
	u64 after;
};

enum {
	NOTE_NONE = 0,
	NOTE_CHANNEL = 1, /* no control channel for the child could be opened; the call was not made */
	NOTE_NOSYS = 2,   /* the kernel sent SIGSYS: it does not know this system call */
};

/* Payload of OP_SYSCALL: this, then relocations, then wanted ranges, then the arena's first bytes, aligned to 16. */
struct syscall_request {
	u64 arguments[8];
	u32 number;
	u32 pointers; /* bit i: argument i is an offset into the arena */
	u32 relocations;
	u32 ranges;
	u32 arena_at; /* offset of the arena in the payload */
	u32 arena_given; /* bytes present; more memory follows, with arbitrary content */
	u32 arena_size; /* bytes needed in all */
	u32 pad;
};

struct relocation {
	u32 at; /* store, at this offset of the arena, the address of ... */
	u32 to; /* ... this offset */
};

enum length_source { LENGTH_FIXED, LENGTH_VALUE, LENGTH_U64, LENGTH_U32 };

struct range {
	u32 offset;
	u32 maximum;
	u32 source; /* enum length_source */
	u32 source_at; /* arena offset of the length */
};

struct branch_request {
	u32 number; /* fork, vfork or rfork */
	u32 id;
	u64 argument;
	u32 flags;
	u32 pad;
};

enum {
	BRANCH_SHARES_MEMORY = 1, /* the child needs a stack and a state of its own */
	BRANCH_SHARES_FILES = 2, /* closing a descriptor would close it in the other process, too */
	BRANCH_NO_FILES = 4, /* the child begins without descriptors and connects by itself */
	BRANCH_PRISTINE = 8, /* new session, default signals, no other descriptors: Hub.spawn() */
	BRANCH_WAITS = 16, /* the parent goes on when the child no longer needs the memory: vfork() */
};

struct sigaction_request {
	u32 signal;
	u32 handler; /* enum handler_kind, HANDLER_QUERY to change nothing */
	u32 flags;
	u32 pad;
	u64 mask[2];
};

enum handler_kind { HANDLER_DEFAULT = 0, HANDLER_IGNORE = 1, HANDLER_LOG = 2, HANDLER_INTERNAL = 3, HANDLER_QUERY = 4 };

struct sigaction_data {
	u32 handler;
	u32 flags;
	u64 mask[2];
};

struct signal_record {
	i32 signal, code, pid, uid, status;
	u32 siginfo;
	u64 at; /* ns */
	u32 sequence;
	i32 receiver; /* pid; after a fork the log still holds what the parent got */
};

struct storm_request {
	u64 number; /* fork or vfork */
	u64 argument;
	u32 count;
	u32 status;
	u32 stop_pid; /* 0: none */
	u32 flags;
	u64 deadline; /* ns from now, 0: none */
};

enum { STORM_RECORD = 1, STORM_STOP_AT_REPEAT = 2 };

struct storm_data {
	u32 count;
	u32 stopped;
	u32 failed; /* 0 nothing, 1 fork, 2 wait */
	u32 recorded;
	u64 elapsed; /* ns */
};

struct storm_record {
	u32 pid;
	u32 forked; /* us since the start */
	u32 reaped;
};

struct spawn_many_request {
	u32 count;
	u32 status;
	u32 leash; /* 0: the children exit at once; else the id of the connection whose end lets them go */
	u32 flags;
	u64 number; /* fork or vfork, the latter only without a leash */
};

enum { SPAWN_SESSIONS = 1 }; /* each child makes a session of its own */

struct repeat_request {
	u32 predicate;
	u32 length_at; /* arena offset of the length that PREDICATE_LENGTH_* looks at */
	i64 value;
	u64 deadline; /* ns from now */
	u64 pause; /* ns between calls */
};

enum predicate { VALUE_IS = 0, VALUE_IS_NOT = 1, ERROR_IS = 2, ERROR_IS_NOT = 3, LENGTH_IS = 4, LENGTH_IS_NOT = 5 };

struct repeat_data {
	u64 count;
	u64 elapsed; /* ns */
	u64 length;
	u32 met;
	u32 pad;
};

/* ---- State ---- */

enum {
	CHANNEL_BASE = 20, /* channels live here and above, so that tests find the low descriptors free */
	SIGNAL_LOG = 256,
	STAGE = 4096,
	SAVED = 8192,
};

/*
 * A thread of control the host drives.  It lives at the start of a region whose size is also its alignment, with its
 * stack at the end: a signal handler finds it by rounding its stack pointer down, without thread-local storage.
 */
struct driven {
	u32 id;
	i32 channel;
	i32 is_thread;
	i32 shares_files;
	volatile u32 nosys; /* set by the SIGSYS handler */
	struct branch_request branch; /* kept here because the child of a fork starts on an empty stack */
	volatile u64 deliveries;
	u64 delivered; /* up to here, records have been read by the host, or were the parent's */
	struct signal_record log[SIGNAL_LOG];
	u8 stage[STAGE];
	u8 saved[SAVED];
	u8 memory[] __attribute__((aligned(16)));
};

/*
 * Small, because every fork has to copy the map, and because some kernels fill in all of a mapping that has been copied
 * too often (vm_fault.c: vm_fault_collapse()).  A call that needs more memory gets it for its own time.
 */
#define REGION (256ul << 10)
#define STACK (64ul << 10)
#define MEMORY (REGION - STACK - sizeof(struct driven))

extern char socket_path[128];
extern char program_path[256];
extern i32 channel_limit;

/* ---- start.c ---- */

void copy_text(char *to, const char *from, u64 room);
struct driven *new_region(void);
void free_region(struct driven *);
void *map_memory(u64 length, int inherited);
void unmap_memory(void *, u64 length);
i64 branch(u64 number, u64 argument, u64 second, void *stack, void (*entry)(void *), void *context, int *error);
i64 fork_exit(u64 number, u64 argument, u64 status, int *error);
NORETURN void become(struct driven *, void (*entry)(void *));
void *memcpy(void *, const void *, u64);
void *memset(void *, int, u64);
u64 length_of(const char *);

/* ---- driven.c ---- */

void execute(struct driven *, const struct request *, u8 *payload);
NORETURN void serve(void *driven);
int open_channel(u32 id, i32 *channel);
void close_channels(i32 except);
void fork_ahead(struct driven *, u32 id);
void watch_nosys(void);
void ignore_signal(u32 signal);
int write_all(i32 fd, const void *, u64);
int read_all(i32 fd, void *, u64);
void send_answer(struct driven *, u32 sequence, struct answer *, const void *data, u64 length);
void run_call(struct driven *, u8 *payload, struct answer *);
void send_call(struct driven *, u32 sequence, struct answer *, u8 *payload, const void *head, u64 head_length);
u64 now(void);

/* ---- bulk.c ---- */

void storm(struct driven *, const struct request *, const struct storm_request *);
void spawn_many(struct driven *, const struct request *, const struct spawn_many_request *);
void repeat(struct driven *, const struct request *, u8 *payload);

/* ---- hub.c ---- */

extern i32 hub_input, hub_output;

NORETURN void hub(void *driven);
void hub_send(u32 id, const void *, u64, const void *, u64);
void listen_for_host(u32 port, const char *token);

/* ---- System calls of the executor's own: the result, or minus the errno. ---- */

static inline i64 os(u64 number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	const u64 arguments[8] = { a, b, c, d, e, f, 0, 0 };
	u64 second;
	int error;
	i64 value = raw_call((long)number, arguments, &second, &error);

	return error ? -error : value;
}

#define OS1(n, a) os(n, (u64)(a), 0, 0, 0, 0, 0)
#define OS2(n, a, b) os(n, (u64)(a), (u64)(b), 0, 0, 0, 0)
#define OS3(n, a, b, c) os(n, (u64)(a), (u64)(b), (u64)(c), 0, 0, 0)
#define OS4(n, a, b, c, d) os(n, (u64)(a), (u64)(b), (u64)(c), (u64)(d), 0, 0)
#define OS6(n, a, b, c, d, e, f) os(n, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), (u64)(f))

static inline NORETURN void die(int status)
{
	for (;;)
		OS1(NR_EXIT, status);
}

#endif
