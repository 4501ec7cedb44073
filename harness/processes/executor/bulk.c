/* SPDX-License-Identifier: BSD-2-Clause */
/* Bulk work at the guest's own speed, reported once at the end. */

#include "executor.h"

static i64 reap(i64 pid)
{
	i64 result;

	do
		result = OS4(NR_WAIT4, pid, NULL, 0, NULL);
	while (result == -EINTR);
	return result;
}

enum { PIDS = 1 << 20, SEEN = PIDS / 8 }; /* one bit for each pid */

static int see(u8 *seen, u64 pid)
{
	u8 *byte = &seen[pid % PIDS / 8];
	u8 bit = (u8)(1 << pid % 8);
	int before = (*byte & bit) != 0;

	*byte |= bit;
	return before;
}

/* Fork, exit, wait, again and again. */
void storm(struct driven *driven, const struct request *request, const struct storm_request *asked)
{
	struct storm_request wanted = *asked;
	struct answer answer = { 0 };
	u64 room = wanted.flags & STORM_RECORD ? wanted.count * sizeof(struct storm_record) : 0;
	u64 size = SEEN + sizeof(struct storm_data) + room;
	/* The children must not inherit it, or each fork would have to copy what was written since the last one. */
	u8 *seen = map_memory(size, 0);
	struct storm_data *data = (struct storm_data *)(seen + SEEN);
	struct storm_record *records = (struct storm_record *)(data + 1);
	u64 began, time = 0;
	int error = 0;

	if (seen == NULL) {
		answer.error = ENOMEM;
		answer.value = -1;
		send_answer(driven, request->sequence, &answer, NULL, 0);
		return;
	}
	answer.before = began = now();
	while (data->count < wanted.count) {
		u64 forked = 0;
		i64 pid = fork_exit(wanted.number, wanted.argument, wanted.status, &error), reaped;

		if (error) {
			data->failed = 1;
			break;
		}
		if (wanted.flags & STORM_RECORD)
			forked = now();
		reaped = reap(pid);
		if (reaped != pid) {
			data->failed = 2;
			error = reaped < 0 ? (int)-reaped : 0;
			break;
		}
		if (wanted.flags & STORM_RECORD || wanted.deadline)
			time = now();
		if (wanted.flags & STORM_RECORD) {
			struct storm_record *record = &records[data->recorded++];

			record->pid = (u32)pid;
			record->forked = (u32)((forked - began) / 1000);
			record->reaped = (u32)((time - began) / 1000);
		}
		data->count++;
		if ((u32)pid == wanted.stop_pid || (wanted.flags & STORM_STOP_AT_REPEAT && see(seen, (u64)pid))) {
			data->stopped = 1;
			break;
		}
		if (wanted.deadline && time - began >= wanted.deadline)
			break;
	}
	answer.after = now();
	data->elapsed = answer.after - began;
	/* The storm itself is done; what ended it is part of the result. */
	answer.value = error;
	send_answer(driven, request->sequence, &answer, data, sizeof(*data) + data->recorded * sizeof(*records));
	unmap_memory(seen, size);
}

struct parked {
	i32 leash;
	u32 flags;
};

static NORETURN void park(void *context)
{
	struct parked parked = *(struct parked *)context;
	u8 byte;

	if (parked.flags & SPAWN_SESSIONS)
		OS1(NR_SETSID, 0);
	close_channels(parked.leash);
	while (OS3(NR_READ, parked.leash, &byte, 1) == -EINTR)
		continue;
	die(0);
}

void spawn_many(struct driven *driven, const struct request *request, const struct spawn_many_request *asked)
{
	struct spawn_many_request wanted = *asked;
	struct answer answer = { 0 };
	struct parked *parked = (struct parked *)driven->saved;
	i32 *pids = (i32 *)driven->memory, identity[2] = { 0, 0 };
	u64 count = 0;
	int error = 0;

	answer.before = now();
	parked->leash = -1;
	parked->flags = wanted.flags;
	if (wanted.leash) {
		error = open_channel(wanted.leash, &parked->leash);
		if (error)
			answer.note = NOTE_CHANNEL;
		else
			write_all(parked->leash, identity, sizeof(identity)); /* a leash is nobody's process */
	}
	while (!error && count < wanted.count && count < MEMORY / sizeof(*pids)) {
		i64 pid = wanted.leash ? branch(NR_FORK, 0, 0, (u8 *)driven + REGION, park, parked, &error)
				       : fork_exit(wanted.number, 0, wanted.status, &error);

		if (!error)
			pids[count++] = (i32)pid;
	}
	if (parked->leash >= 0)
		OS1(NR_CLOSE, parked->leash);
	answer.after = now();
	answer.error = error;
	answer.value = (i64)count;
	send_answer(driven, request->sequence, &answer, pids, count * sizeof(*pids));
}

static int met(const struct repeat_request *wanted, const struct answer *answer, const u8 *arena, u64 *length)
{
	*length = 0;
	if (wanted->predicate >= LENGTH_IS)
		memcpy(length, arena + wanted->length_at, sizeof(*length));
	switch (wanted->predicate) {
	case VALUE_IS:
		return answer->value == wanted->value && !answer->error;
	case VALUE_IS_NOT:
		return answer->value != wanted->value || answer->error;
	case ERROR_IS:
		return answer->error == wanted->value;
	case ERROR_IS_NOT:
		return answer->error != wanted->value;
	case LENGTH_IS:
		return (i64)*length == wanted->value && !answer->error;
	default:
		return (i64)*length != wanted->value || answer->error;
	}
}

/* Make the same system call until its outcome is the awaited one. */
void repeat(struct driven *driven, const struct request *request, u8 *payload)
{
	struct repeat_request wanted = *(struct repeat_request *)payload;
	u8 *call_payload = payload + sizeof(wanted);
	struct syscall_request *call = (struct syscall_request *)call_payload;
	u8 *arena = call_payload + call->arena_at;
	u64 pause[2] = { wanted.pause / 1000000000ul, wanted.pause % 1000000000ul };
	struct repeat_data data = { 0 };
	struct answer answer = { 0 };
	u64 began = now();

	if (call->arena_given > SAVED) {
		answer.error = E2BIG;
		answer.value = -1;
		send_answer(driven, request->sequence, &answer, NULL, 0);
		return;
	}
	memcpy(driven->saved, arena, call->arena_given); /* each call changes what it is given, lengths above all */
	for (;;) {
		run_call(driven, call_payload, &answer);
		data.count++;
		data.elapsed = answer.after - began;
		data.met = (u32)met(&wanted, &answer, arena, &data.length);
		if (data.met || data.elapsed >= wanted.deadline)
			break;
		memcpy(arena, driven->saved, call->arena_given);
		if (wanted.pause)
			OS2(NR_NANOSLEEP, pause, NULL);
	}
	send_call(driven, request->sequence, &answer, call_payload, &data, sizeof(data));
}
