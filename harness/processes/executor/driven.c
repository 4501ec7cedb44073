/* SPDX-License-Identifier: BSD-2-Clause */
/* A driven process (or thread): takes requests from its channel, makes system calls, answers. */

#include "executor.h"

u64 now(void)
{
	u64 time[2] = { 0, 0 };

	OS2(NR_CLOCK_GETTIME, CLOCK_MONOTONIC, time);
	return time[0] * 1000000000ul + time[1];
}

/* ---- Channels.  A test may send us signals at any time: each call that can be interrupted is repeated. ---- */

int write_all(i32 fd, const void *data, u64 length)
{
	const u8 *at = data;

	while (length) {
		i64 done = OS6(NR_SENDTO, fd, at, length, MSG_NOSIGNAL, NULL, 0);

		if (done == -EINTR || done == -EAGAIN)
			continue;
		if (done <= 0)
			return -1;
		at += done;
		length -= (u64)done;
	}
	return 0;
}

int read_all(i32 fd, void *data, u64 length)
{
	u8 *at = data;

	while (length) {
		i64 done = OS3(NR_READ, fd, at, length);

		if (done == -EINTR || done == -EAGAIN)
			continue;
		if (done <= 0)
			return -1;
		at += done;
		length -= (u64)done;
	}
	return 0;
}

static void nap(u64 nanoseconds)
{
	u64 time[2] = { nanoseconds / 1000000000ul, nanoseconds % 1000000000ul };

	OS2(NR_NANOSLEEP, time, NULL);
}

/* Connect to the hub as ID.  0, or the errno of what failed. */
int open_channel(u32 id, i32 *channel)
{
	u64 length = length_of(socket_path);
	struct sockaddr_un address = SOCKADDR_UN(2 + length + 1);
	i64 low, high, error = 0;

	memcpy(address.path, socket_path, length + 1);
	low = OS3(NR_SOCKET, 1, 1, 0);
	if (low < 0)
		return (int)-low;
	/* A burst of forks may find the hub's backlog full: BSD then refuses instead of waiting. */
	for (u32 tries = 0; tries < 2000; tries++) {
		error = OS3(NR_CONNECT, low, &address, 2 + length + 1);
		if (error == -EISCONN || error == 0)
			break;
		if (error == -ECONNREFUSED || error == -EAGAIN || error == -EALREADY)
			nap(2000000);
		else if (error != -EINTR)
			break;
	}
	if (error != 0 && error != -EISCONN) {
		OS1(NR_CLOSE, low);
		return (int)-error;
	}
	high = OS3(NR_FCNTL, low, F_DUPFD, CHANNEL_BASE);
	OS1(NR_CLOSE, low);
	if (high < 0)
		return (int)-high;
	OS3(NR_FCNTL, high, F_SETFD, FD_CLOEXEC);
	if (high >= channel_limit)
		channel_limit = (i32)high + 1;
	if (write_all((i32)high, &id, sizeof(id)) < 0) {
		OS1(NR_CLOSE, high);
		return ECONNREFUSED;
	}
	*channel = (i32)high;
	return 0;
}

void close_channels(i32 except)
{
	for (i32 fd = CHANNEL_BASE; fd < channel_limit; fd++)
		if (fd != except)
			OS1(NR_CLOSE, fd);
}

void send_answer(struct driven *driven, u32 sequence, struct answer *answer, const void *data, u64 length)
{
	answer->length = (u32)(sizeof(*answer) - 8 + length);
	answer->sequence = sequence;
	if (driven->id == HUB_ID) {
		hub_send(HUB_ID, answer, sizeof(*answer), data, length);
		return;
	}
	if (sizeof(*answer) + length <= STAGE) { /* one system call where it can be one */
		memcpy(driven->stage, answer, sizeof(*answer));
		memcpy(driven->stage + sizeof(*answer), data, length);
		if (write_all(driven->channel, driven->stage, sizeof(*answer) + length) < 0)
			die(0);
		return;
	}
	if (write_all(driven->channel, answer, sizeof(*answer)) < 0 || write_all(driven->channel, data, length) < 0)
		die(0);
}

/* ---- Signals ---- */

static struct driven *here(void)
{
	u64 stack;

	__asm__ volatile("mov %%rsp, %0" : "=r"(stack));
	return (struct driven *)(stack & ~(REGION - 1));
}

static void log_signal(i32 signal, const struct siginfo *info)
{
	struct driven *driven = here();
	struct signal_record *record = &driven->log[driven->deliveries % SIGNAL_LOG];

	memset(record, 0, sizeof(*record));
	record->signal = signal;
	if (info) {
		record->siginfo = 1;
		record->code = info->code;
		record->pid = info->pid;
		record->uid = info->uid;
		record->status = info->status;
	}
	record->at = now();
	record->sequence = (u32)driven->deliveries;
	record->receiver = (i32)OS1(NR_GETPID, 0);
	driven->deliveries++;
}

static void log_plain(i32 signal)
{
	log_signal(signal, NULL);
}

static void log_siginfo(i32 signal, const struct siginfo *info, void *context UNUSED)
{
	log_signal(signal, info);
}

/* DragonFly answers an unknown system call with SIGSYS and EINVAL; this makes it ENOSYS without losing the process. */
static void on_nosys(i32 signal UNUSED)
{
	here()->nosys = 1;
}

#if defined(ABI_LINUX)
void restore_from_signal(void);
__asm__(".globl restore_from_signal\n"
	"restore_from_signal:\n"
	"mov $15, %eax\n" /* rt_sigreturn */
	"syscall\n");
#endif

static i64 set_action(u32 signal, u64 handler, u32 flags, const u64 mask[2], struct kernel_sigaction *old, int query)
{
	struct kernel_sigaction action;

	memset(&action, 0, sizeof(action));
	action.handler = handler;
	action.flags = flags;
	memcpy(&action.mask, mask, sizeof(action.mask));
#if defined(ABI_LINUX)
	action.flags |= SA_RESTORER;
	action.restorer = (u64)restore_from_signal;
#endif
	return OS4(NR_SIGACTION, signal, query ? NULL : &action, old, SIGSET_ARGUMENT);
}

void watch_nosys(void)
{
	const u64 none[2] = { 0, 0 };

	set_action(SIG_SYS, (u64)on_nosys, 0, none, NULL, 0);
}

void ignore_signal(u32 signal)
{
	const u64 none[2] = { 0, 0 };

	set_action(signal, HANDLER_IGNORE, 0, none, NULL, 0);
}

static void change_action(struct driven *driven, const struct request *request, const struct sigaction_request *wanted)
{
	struct answer answer = { 0 };
	struct kernel_sigaction old;
	struct sigaction_data data;
	u64 handler = wanted->handler;
	i64 result;

	memset(&old, 0, sizeof(old));
	memset(&data, 0, sizeof(data));
	if (wanted->handler == HANDLER_LOG)
		handler = wanted->flags & SA_SIGINFO_BIT ? (u64)log_siginfo : (u64)log_plain;
	/* Unknown system calls must not kill a process whose test says "default". */
	if (wanted->handler == HANDLER_DEFAULT && wanted->signal == SIG_SYS)
		handler = (u64)on_nosys;
	answer.before = now();
	result = set_action(wanted->signal, handler, wanted->flags, wanted->mask, &old, wanted->handler == HANDLER_QUERY);
	answer.after = now();
	if (result < 0) {
		answer.error = (i32)-result;
		answer.value = -1;
	}
	if (old.handler == (u64)log_plain || old.handler == (u64)log_siginfo)
		data.handler = HANDLER_LOG;
	else if (old.handler > HANDLER_IGNORE)
		data.handler = HANDLER_INTERNAL;
	else
		data.handler = (u32)old.handler;
	data.flags = (u32)old.flags;
	memcpy(data.mask, &old.mask, sizeof(old.mask));
	send_answer(driven, request->sequence, &answer, &data, sizeof(data));
}

static void report_signals(struct driven *driven, const struct request *request)
{
	struct answer answer = { 0 };
	struct signal_record *copy = (struct signal_record *)driven->memory;
	u64 end = driven->deliveries, count = 0;

	if (end - driven->delivered > SIGNAL_LOG) /* the oldest were overwritten; the sequence numbers show it */
		driven->delivered = end - SIGNAL_LOG;
	while (driven->delivered < end)
		copy[count++] = driven->log[driven->delivered++ % SIGNAL_LOG];
	answer.value = (i64)end;
	send_answer(driven, request->sequence, &answer, copy, count * sizeof(*copy));
}

/* A signal may come before a new process runs its first line, so the log cannot simply be emptied there. */
static void forget_parents_signals(struct driven *driven, i32 pid)
{
	u64 first = driven->deliveries;

	while (first > driven->delivered && driven->log[(first - 1) % SIGNAL_LOG].receiver == pid)
		first--;
	driven->delivered = first;
}

/* ---- The generic system call ---- */

void run_call(struct driven *driven, u8 *payload, struct answer *answer)
{
	struct syscall_request *call = (struct syscall_request *)payload;
	const struct relocation *relocation = (const struct relocation *)(call + 1);
	u8 *arena = payload + call->arena_at;
	u64 arguments[8], second = 0;
	int error;

	for (u32 i = 0; i < call->relocations; i++) {
		u64 address = (u64)(arena + relocation[i].to);

		memcpy(arena + relocation[i].at, &address, sizeof(address));
	}
	for (u32 i = 0; i < 8; i++)
		arguments[i] = call->pointers >> i & 1 ? (u64)(arena + call->arguments[i]) : call->arguments[i];
	driven->nosys = 0;
	answer->before = now();
	answer->value = raw_call(call->number, arguments, &second, &error);
	answer->after = now();
	answer->second = (i64)second;
	answer->error = error;
	answer->note = NOTE_NONE;
	if (driven->nosys && error) {
		answer->error = ENOSYS;
		answer->note = NOTE_NOSYS;
	}
}

/* Answer with HEAD, then each wanted range as a word of length and its bytes, gathered behind the arena's own data. */
void send_call(struct driven *driven, u32 sequence, struct answer *answer, u8 *payload, const void *head, u64 head_length)
{
	const struct syscall_request *call = (const struct syscall_request *)payload;
	const struct range *range =
		(const struct range *)(payload + sizeof(*call) + call->relocations * sizeof(struct relocation));
	u8 *arena = payload + call->arena_at;
	u64 total = head_length, part_lengths[8];
	u32 ranges = call->ranges < 8 ? call->ranges : 8;

	for (u32 i = 0; i < ranges; i++) {
		u64 length = range[i].maximum;

		if (range[i].source == LENGTH_VALUE)
			length = answer->value > 0 ? (u64)answer->value : 0;
		else if (range[i].source == LENGTH_U64)
			memcpy(&length, arena + range[i].source_at, 8);
		else if (range[i].source == LENGTH_U32)
			length = 0, memcpy(&length, arena + range[i].source_at, 4);
		part_lengths[i] = length < range[i].maximum ? length : range[i].maximum;
		total += 4 + part_lengths[i];
	}
	answer->length = (u32)(sizeof(*answer) - 8 + total);
	answer->sequence = sequence;
	if (sizeof(*answer) + total <= STAGE) {
		u8 *at = driven->stage + sizeof(*answer);

		memcpy(driven->stage, answer, sizeof(*answer));
		memcpy(at, head, head_length);
		at += head_length;
		for (u32 i = 0; i < ranges; i++) {
			memcpy(at, &part_lengths[i], 4);
			memcpy(at + 4, arena + range[i].offset, part_lengths[i]);
			at += 4 + part_lengths[i];
		}
		if (driven->id == HUB_ID)
			hub_send(HUB_ID, driven->stage, sizeof(*answer) + total, NULL, 0);
		else if (write_all(driven->channel, driven->stage, sizeof(*answer) + total) < 0)
			die(0);
		return;
	}
	if (driven->id == HUB_ID) {
		hub_send(HUB_ID, answer, sizeof(*answer), head, head_length);
		for (u32 i = 0; i < ranges; i++)
			hub_send(HUB_ID, &part_lengths[i], 4, arena + range[i].offset, part_lengths[i]);
		return;
	}
	if (write_all(driven->channel, answer, sizeof(*answer)) < 0 || write_all(driven->channel, head, head_length) < 0)
		die(0);
	for (u32 i = 0; i < ranges; i++)
		if (write_all(driven->channel, &part_lengths[i], 4) < 0 ||
		    write_all(driven->channel, arena + range[i].offset, part_lengths[i]) < 0)
			die(0);
}

/*
 * The payload of a request that ends in a system call, with as much memory behind it as the call needs: where it is, or
 * elsewhere, in which case *MAPPED says how much to unmap afterwards.  NULL if there is not enough memory.
 */
static u8 *with_room(struct driven *driven, const struct request *request, u8 *payload, u64 skip, u64 *mapped)
{
	const struct syscall_request *call = (const struct syscall_request *)(payload + skip);
	u64 needed = skip + call->arena_at + call->arena_size;
	struct answer answer = { 0 };
	u8 *room;

	*mapped = 0;
	if (needed <= MEMORY)
		return payload;
	room = map_memory(needed, 0);
	if (room == NULL) {
		answer.error = ENOMEM;
		answer.value = -1;
		send_answer(driven, request->sequence, &answer, NULL, 0);
		return NULL;
	}
	*mapped = needed;
	memcpy(room, payload, request->length);
	return room;
}

static void system_call(struct driven *driven, const struct request *request, u8 *payload)
{
	struct answer answer = { 0 };

	run_call(driven, payload, &answer);
	send_call(driven, request->sequence, &answer, payload, NULL, 0);
}

/* ---- Splitting in two ---- */

static void default_signals(void)
{
	const u64 none[2] = { 0, 0 };

	for (u32 signal = 1; signal <= SIGNALS; signal++)
		set_action(signal, 0, 0, none, NULL, 0);
	OS4(NR_SIGPROCMASK, SIG_SETMASK, none, NULL, SIGSET_ARGUMENT);
	watch_nosys();
}

/* The first thing a new process, or thread, does: tell who it is. */
static NORETURN void begin(void *context)
{
	struct driven *driven = context;
	const struct branch_request *wanted = &driven->branch;
	i32 identity[2];

	driven->id = wanted->id;
	driven->shares_files = (wanted->flags & BRANCH_SHARES_FILES) != 0;
	if (wanted->flags & BRANCH_NO_FILES) {
		if (open_channel(driven->id, &driven->channel) != 0)
			die(1);
	} else if (wanted->flags & BRANCH_PRISTINE) {
		for (i32 fd = 0; fd < channel_limit; fd++)
			if (fd != driven->channel)
				OS1(NR_CLOSE, fd);
		channel_limit = driven->channel + 1;
		default_signals();
		OS1(NR_SETSID, 0);
	} else if (!driven->shares_files) {
		close_channels(driven->channel);
	}
	identity[0] = (i32)OS1(NR_GETPID, 0);
	forget_parents_signals(driven, identity[0]);
	identity[1] = (i32)OS1(NR_GETTID, 0);
	if (write_all(driven->channel, identity, sizeof(identity)) < 0)
		die(0);
	serve(driven);
}

static void split(struct driven *driven, const struct request *request, const struct branch_request *wanted)
{
	struct answer answer = { 0 };
	struct driven *child = driven;
	i32 own = driven->channel, channel = -1;
	u32 id = driven->id;
	int error = 0;

	if (!(wanted->flags & BRANCH_NO_FILES))
		error = open_channel(wanted->id, &channel);
	if (error == 0 && wanted->flags & BRANCH_SHARES_MEMORY) {
		child = new_region();
		if (child == NULL)
			error = EAGAIN;
	}
	if (error) {
		answer.error = error;
		answer.note = NOTE_CHANNEL;
		answer.value = -1;
		if (channel >= 0)
			OS1(NR_CLOSE, channel);
		send_answer(driven, request->sequence, &answer, NULL, 0);
		return;
	}
	/* Where memory is copied, the child finds these in its copy and the parent puts back its own. */
	child->branch = *wanted;
	child->channel = channel;
	answer.before = now();
	answer.value = branch(wanted->number, wanted->argument, 0, (u8 *)child + REGION, begin, child, &error);
	answer.after = now();
	driven->channel = own;
	driven->id = id;
	answer.error = error;
	if (channel >= 0 && !(wanted->flags & BRANCH_SHARES_FILES && !error))
		OS1(NR_CLOSE, channel);
	if (child != driven && (error || wanted->flags & BRANCH_WAITS))
		free_region(child);
	send_answer(driven, request->sequence, &answer, NULL, 0);
}

/*
 * Make a fresh process before the host asks for it.  What goes wrong shows in its connection, which ends then, and the
 * host asks for another.
 */
void fork_ahead(struct driven *driven, u32 id)
{
	struct branch_request wanted = { .number = NR_FORK, .id = id, .flags = BRANCH_PRISTINE };
	i32 own = driven->channel, channel = -1;
	int error = 0;

	if (open_channel(id, &channel) != 0)
		return;
	driven->branch = wanted;
	driven->channel = channel;
	branch(NR_FORK, 0, 0, (u8 *)driven + REGION, begin, driven, &error);
	driven->channel = own;
	OS1(NR_CLOSE, channel);
}

static void thread_begin(void *context)
{
	begin(context);
}

static void new_thread(struct driven *driven, const struct request *request, const struct branch_request *wanted)
{
	struct answer answer = { 0 };
	struct driven *thread = new_region();
	int error = thread ? 0 : EAGAIN;

	if (thread)
		error = open_channel(wanted->id, &thread->channel);
	if (error) {
		answer.note = NOTE_CHANNEL;
	} else {
		thread->branch = *wanted;
		thread->branch.flags |= BRANCH_SHARES_FILES;
		thread->is_thread = 1;
		answer.before = now();
#if defined(ABI_LINUX)
		/* CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM */
		answer.value = branch(NR_CLONE, 0x00050f00, (u64)thread + REGION, (u8 *)thread + REGION, thread_begin,
				      thread, &error);
#else
		i32 tid = 0;
		struct lwp_params parameters = {
			.function = thread_begin,
			.argument = thread,
			.stack = (u8 *)thread + REGION,
			.tid1 = &tid,
			.tid2 = NULL,
		};
		i64 result = OS1(NR_LWP_CREATE, &parameters);

		if (result < 0)
			error = (int)-result;
		answer.value = result < 0 ? -1 : tid;
#endif
		answer.after = now();
		if (error)
			OS1(NR_CLOSE, thread->channel);
	}
	answer.error = error;
	if (error && thread)
		free_region(thread);
	send_answer(driven, request->sequence, &answer, NULL, 0);
}

/* End this process or thread; where others hold our channel open, too, the host would not notice unless we close it. */
static void leave(struct driven *driven, const struct request *request, u8 *payload)
{
	struct answer answer = { 0 };
	i32 channel = driven->channel;

	if (driven->is_thread || driven->shares_files)
		OS1(NR_CLOSE, channel);
	run_call(driven, payload, &answer);
	if (!(driven->is_thread || driven->shares_files))
		send_call(driven, request->sequence, &answer, payload, NULL, 0); /* it did not end us after all */
	die(1);
}

/* Run this program again, as the same driven process: the channel stays open across it. */
static void run_again(struct driven *driven, const struct request *request)
{
	struct answer answer = { 0 };
	char numbers[3][12];
	u32 values[3] = { (u32)driven->channel, driven->id, request->sequence };
	char *argv[7] = { program_path, (char[]){ "attach" }, socket_path, NULL, NULL, NULL, NULL };
	char *environment[1] = { NULL };

	for (u32 i = 0; i < 3; i++) {
		char *at = numbers[i] + sizeof(numbers[i]);

		*--at = 0;
		do {
			*--at = (char)('0' + values[i] % 10);
			values[i] /= 10;
		} while (values[i]);
		argv[3 + i] = at;
	}
	OS3(NR_FCNTL, driven->channel, F_SETFD, 0);
	answer.before = now();
	answer.error = (i32)-OS3(NR_EXECVE, program_path, argv, environment);
	answer.after = now();
	answer.value = -1;
	OS3(NR_FCNTL, driven->channel, F_SETFD, FD_CLOEXEC);
	send_answer(driven, request->sequence, &answer, NULL, 0);
}

static void touch(struct driven *driven, const struct request *request, u64 length)
{
	struct answer answer = { 0 };

	answer.before = now();
	answer.value = OS6(NR_MMAP, 0, length, 3, MAP_PRIVATE_ANON, -1, 0);
	if (answer.value < 0 && answer.value > -4096) {
		answer.error = (i32)-answer.value;
		answer.value = -1;
	} else {
		for (u64 at = 0; at < length; at += 4096)
			*(volatile u8 *)(answer.value + (i64)at) = 1;
	}
	answer.after = now();
	send_answer(driven, request->sequence, &answer, NULL, 0);
}

void execute(struct driven *driven, const struct request *request, u8 *payload)
{
	struct answer answer = { 0 };
	u64 mapped = 0;
	u8 *room = NULL;

	switch (request->operation) {
	case OP_SYSCALL:
		room = with_room(driven, request, payload, 0, &mapped);
		if (room)
			system_call(driven, request, room);
		break;
	case OP_BRANCH: {
		/* The payload's memory is the child's, too, and it will read requests into it. */
		struct branch_request wanted = *(struct branch_request *)payload;

		split(driven, request, &wanted);
		break;
	}
	case OP_SIGACTION:
		change_action(driven, request, (struct sigaction_request *)payload);
		break;
	case OP_SIGNALS:
		report_signals(driven, request);
		break;
	case OP_THREAD:
		new_thread(driven, request, (struct branch_request *)payload);
		break;
	case OP_LEAVE:
		leave(driven, request, payload);
		break;
	case OP_TOUCH:
		touch(driven, request, *(u64 *)payload);
		break;
	case OP_REEXEC:
		run_again(driven, request);
		break;
	case OP_STORM:
		storm(driven, request, (struct storm_request *)payload);
		break;
	case OP_SPAWN_MANY:
		spawn_many(driven, request, (struct spawn_many_request *)payload);
		break;
	case OP_REPEAT:
		room = with_room(driven, request, payload, sizeof(struct repeat_request), &mapped);
		if (room)
			repeat(driven, request, room);
		break;
	default:
		answer.error = ENOSYS;
		answer.value = -1;
		send_answer(driven, request->sequence, &answer, NULL, 0);
	}
	if (mapped)
		unmap_memory(room, mapped);
}

/* The hub hanging up, in whatever way, is the end: nothing driven outlives its driver. */
NORETURN void serve(void *context)
{
	struct driven *driven = context;
	struct request request;

	for (;;) {
		if (read_all(driven->channel, &request, sizeof(request)) < 0 || request.length > MEMORY ||
		    read_all(driven->channel, driven->memory, request.length) < 0)
			die(0);
		execute(driven, &request, driven->memory);
	}
}
