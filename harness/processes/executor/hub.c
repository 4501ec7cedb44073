/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hub: forwards byte streams between the host and the driven processes, and answers requests of its own (id 0).
 *
 * It never waits for a driven process: bytes one does not take are kept until it does, so a process that is stopped or
 * blocked in a system call holds up nobody.  It may wait for the host, which always reads.
 */

#include "executor.h"

enum {
	CONNECTIONS = 4096,
	KEPT = 262144, /* bytes kept for one process; the host never has more outstanding */
	POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16,
	BACKLOG = 128,
	TOKEN = 64,
};

struct pollfd {
	i32 fd;
	short events;
	short revents;
};

struct connection {
	i32 fd;
	u32 id;
	i32 pid;
	u32 have; /* bytes of the hello received */
	struct hello hello;
	u8 *kept; /* NULL unless bytes wait for the process */
	u32 kept_from, kept_to;
};

i32 hub_input = 0, hub_output = 1;

/* What the hub's children do not inherit. */
struct tables {
	struct connection connections[CONNECTIONS];
	struct pollfd polled[CONNECTIONS + 2];
	u8 input[CHUNK + sizeof(struct frame)];
	u8 output[CHUNK + sizeof(struct frame)];
	u8 spare[CHUNK];
};

static struct tables *tables;
static u32 count, input_length;
static i32 listening;

/*
 * Where idle time is skipped, the guest must not be idle while the host thinks: the clock would run away from it.  So
 * once the host has said for the first time that it awaits something, the hub spins unless the host has had all frames
 * there are and awaits more.  One PAUSE is one instruction to a clock that counts them, but costs QEMU microseconds:
 * with so many between two looks the guest's clock goes about as fast as the host's, which programs that look again
 * and again need.
 */
enum { PAUSES = 32 };

static u32 frames_sent, frames_host_has;
static int paced;
static struct driven *self;

static i32 door = -1; /* at which the host is waited for, if it is */
static char host_token[TOKEN + 1];

/* The hub's own request, as far as it has come. */
static struct request own;
static u32 own_header, own_payload;

static NORETURN void end(void)
{
	/* Driven processes end by themselves when their connection does, but not while they are stopped or blocked. */
	for (u32 i = 0; i < count; i++)
		if (tables->connections[i].pid > 0) {
			OS2(NR_KILL, tables->connections[i].pid, SIG_KILL);
			OS2(NR_KILL, tables->connections[i].pid, SIG_CONT);
		}
	OS1(NR_UNLINK, socket_path);
	die(0);
}

static void write_host(const u8 *at, u64 length)
{
	while (length) {
		i64 done = OS3(NR_WRITE, hub_output, at, length);

		if (done == -EAGAIN) { /* the other end of an ssh channel may have made the pipe non-blocking */
			struct pollfd writable = { hub_output, POLLOUT, 0 };

			OS3(NR_POLL, &writable, 1, 1000);
			continue;
		}
		if (done == -EINTR)
			continue;
		if (done <= 0)
			end();
		at += done;
		length -= (u64)done;
	}
}

static void send_frame(u32 id, const void *data, u32 length)
{
	struct frame frame = { length, id };

	frames_sent++;
	memcpy(tables->output, &frame, sizeof(frame));
	if (data != tables->output + sizeof(frame))
		memcpy(tables->output + sizeof(frame), data, length);
	write_host(tables->output, sizeof(frame) + length);
}

static void send_bytes(u32 id, const u8 *data, u64 length)
{
	while (length) {
		u32 part = length < CHUNK ? (u32)length : CHUNK;

		send_frame(id, data, part);
		data += part;
		length -= part;
	}
}

/* Send an answer of two parts in one frame if it fits. */
void hub_send(u32 id, const void *head, u64 head_length, const void *data, u64 length)
{
	if (head_length + length <= CHUNK) {
		memcpy(tables->output + sizeof(struct frame), head, head_length);
		memcpy(tables->output + sizeof(struct frame) + head_length, data, length);
		send_frame(id, tables->output + sizeof(struct frame), (u32)(head_length + length));
		return;
	}
	send_bytes(id, head, head_length);
	send_bytes(id, data, length);
}

static void send_event(u32 kind, u32 id, i32 pid, i32 tid)
{
	struct event event = { kind, id, pid, tid };

	send_frame(CONTROL_ID, &event, sizeof(event));
}

static void drop(u32 index)
{
	struct connection *connection = &tables->connections[index];

	OS1(NR_CLOSE, connection->fd);
	if (connection->kept)
		OS2(NR_MUNMAP, connection->kept, KEPT);
	if (connection->id)
		send_event(EVENT_GONE, connection->id, connection->pid, 0);
	tables->connections[index] = tables->connections[--count];
}

/* Read once.  Returns 0 when the connection has ended. */
static int receive(struct connection *connection)
{
	u8 *at = tables->output + sizeof(struct frame);
	i64 length = OS6(NR_RECVFROM, connection->fd, at, CHUNK, MSG_DONTWAIT, NULL, NULL);

	if (length == -EINTR || length == -EAGAIN)
		return 1;
	if (length <= 0)
		return 0;
	if (connection->have < sizeof(connection->hello)) {
		u32 missing = (u32)sizeof(connection->hello) - connection->have;
		u32 part = length < missing ? (u32)length : missing;
		u8 *rest = at + part;

		memcpy((u8 *)&connection->hello + connection->have, at, part);
		connection->have += part;
		if (connection->have >= sizeof(u32))
			connection->id = connection->hello.id;
		length -= part;
		if (connection->have == sizeof(connection->hello)) {
			memcpy(tables->spare, rest, (u64)length); /* the event goes through the same buffer */
			connection->pid = connection->hello.pid;
			send_event(EVENT_HELLO, connection->id, connection->hello.pid, connection->hello.tid);
			if (length)
				send_frame(connection->id, tables->spare, (u32)length);
		}
		return 1;
	}
	send_frame(connection->id, at, (u32)length);
	return 1;
}

static void accept_all(void)
{
	for (;;) {
		struct pollfd ready = { listening, POLLIN, 0 };
		i64 fd;

		if (OS3(NR_POLL, &ready, 1, 0) != 1 || count == CONNECTIONS)
			return;
		fd = OS3(NR_ACCEPT, listening, NULL, NULL);
		if (fd < 0)
			return;
		OS3(NR_FCNTL, fd, F_SETFD, FD_CLOEXEC);
		if (fd >= channel_limit)
			channel_limit = (i32)fd + 1;
		memset(&tables->connections[count], 0, sizeof(tables->connections[count]));
		tables->connections[count].fd = (i32)fd;
		count++;
		receive(&tables->connections[count - 1]); /* the id was written before anybody told the host about it */
	}
}

static struct connection *find(u32 id)
{
	for (u32 i = 0; i < count; i++)
		if (tables->connections[i].id == id)
			return &tables->connections[i];
	return NULL;
}

/* Pass on what a process takes at once and keep the rest.  Returns 0 if there is no room for it. */
static int pass_on(struct connection *connection, const u8 *data, u32 length)
{
	while (length && !connection->kept) {
		i64 done = OS6(NR_SENDTO, connection->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);

		if (done == -EINTR)
			continue;
		if (done <= 0 && done != -EAGAIN)
			return 1; /* it is going; its end will be read */
		if (done > 0) {
			data += done;
			length -= (u32)done;
			continue;
		}
		connection->kept = (u8 *)OS6(NR_MMAP, 0, KEPT, 3, MAP_PRIVATE_ANON, -1, 0);
		if ((i64)connection->kept < 0) {
			connection->kept = NULL;
			return 0;
		}
		connection->kept_from = connection->kept_to = 0;
	}
	if (!length)
		return 1;
	if (connection->kept_to + length > KEPT) {
		u32 waiting = connection->kept_to - connection->kept_from;

		memcpy(connection->kept, connection->kept + connection->kept_from, waiting);
		connection->kept_from = 0;
		connection->kept_to = waiting;
	}
	if (connection->kept_to + length > KEPT)
		return 0;
	memcpy(connection->kept + connection->kept_to, data, length);
	connection->kept_to += length;
	return 1;
}

static void pass_on_kept(struct connection *connection)
{
	i64 done = OS6(NR_SENDTO, connection->fd, connection->kept + connection->kept_from,
		       connection->kept_to - connection->kept_from, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);

	if (done == -EINTR || done == -EAGAIN)
		return;
	connection->kept_from += done > 0 ? (u32)done : connection->kept_to - connection->kept_from;
	if (connection->kept_from == connection->kept_to) {
		OS2(NR_MUNMAP, connection->kept, KEPT);
		connection->kept = NULL;
	}
}

/* Bytes of a request to the hub itself; execute it when complete. */
static void take_own(const u8 *data, u32 length)
{
	while (length || (own_header == sizeof(own) && own_payload == own.length)) {
		u8 *to = own_header < sizeof(own) ? (u8 *)&own + own_header : self->memory + own_payload;
		u32 missing = own_header < sizeof(own) ? (u32)sizeof(own) - own_header : own.length - own_payload;
		u32 part = length < missing ? length : missing;

		memcpy(to, data, part);
		data += part;
		length -= part;
		if (own_header < sizeof(own)) {
			own_header += part;
			if (own_header == sizeof(own) && own.length > MEMORY)
				end();
		} else {
			own_payload += part;
		}
		if (own_header == sizeof(own) && own_payload == own.length) {
			own_header = own_payload = 0;
			execute(self, &own, self->memory);
		}
	}
}

static void take_frame(u32 id, const u8 *data, u32 length)
{
	struct connection *connection;

	if (id == HUB_ID) {
		take_own(data, length);
	} else if (id == CONTROL_ID) {
		u32 order[2];

		if (length != sizeof(order))
			return;
		memcpy(order, data, sizeof(order));
		if (order[0] == ORDER_AWAIT) {
			paced = 1;
			frames_host_has = order[1];
			return;
		}
		if (order[0] == ORDER_FREE)
			paced = 0;
		connection = find(order[1]);
		if (order[0] == ORDER_CLOSE && connection) /* it will end, and its end be read */
			OS2(NR_SHUTDOWN, connection->fd, 1);
	} else {
		connection = find(id);
		if (connection && !pass_on(connection, data, length))
			drop((u32)(connection - tables->connections));
	}
}

/* Read from the host and act upon each complete frame. */
static void take_input(void)
{
	i64 length = OS3(NR_READ, hub_input, tables->input + input_length, sizeof(tables->input) - input_length);
	u32 at = 0;

	if (length == -EINTR || length == -EAGAIN)
		return;
	if (length <= 0)
		end();
	input_length += (u32)length;
	accept_all(); /* processes the host has heard of must be known before it is heard itself */
	for (u32 i = 0; i < count; i++)
		if (!tables->connections[i].id)
			receive(&tables->connections[i]);
	for (;;) {
		struct frame frame;

		if (input_length - at < sizeof(frame))
			break;
		memcpy(&frame, tables->input + at, sizeof(frame));
		if (frame.length > CHUNK)
			end();
		if (input_length - at < sizeof(frame) + frame.length)
			break;
		take_frame(frame.id, tables->input + at + sizeof(frame), frame.length);
		at += (u32)sizeof(frame) + frame.length;
	}
	memcpy(tables->input, tables->input + at, input_length - at);
	input_length -= at;
}

static void raise_limits(void)
{
	u64 limit[2];

	if (OS2(NR_GETRLIMIT, RLIMIT_NOFILE, limit) < 0)
		return;
	limit[0] = limit[1] < CONNECTIONS + 32 ? limit[1] : CONNECTIONS + 32;
	OS2(NR_SETRLIMIT, RLIMIT_NOFILE, limit);
}

static int listen_for_processes(void)
{
	u64 length = length_of(socket_path);
	struct sockaddr_un address = SOCKADDR_UN(2 + length + 1);

	if (length >= sizeof(address.path))
		return 0;
	memcpy(address.path, socket_path, length + 1);
	OS1(NR_UNLINK, socket_path);
	listening = (i32)OS3(NR_SOCKET, 1, 1, 0);
	if (listening < 0 || OS3(NR_BIND, listening, &address, 2 + length + 1) < 0 ||
	    OS2(NR_CHMOD, socket_path, 0777) < 0 || OS2(NR_LISTEN, listening, BACKLOG) < 0)
		return 0;
	OS3(NR_FCNTL, listening, F_SETFD, FD_CLOEXEC);
	if (listening >= channel_limit)
		channel_limit = listening + 1;
	return 1;
}

/* Read exactly LENGTH bytes and compare them with WANTED. */
static int reads(i32 fd, const char *wanted, u64 length)
{
	u8 got[TOKEN];
	u8 differs = 0;

	if (length > sizeof(got) || read_all(fd, got, length) < 0)
		return 0;
	for (u64 i = 0; i < length; i++)
		differs |= got[i] ^ (u8)wanted[i];
	return !differs;
}

/*
 * Let the hub wait, in the background, for the host to connect to PORT and to begin with TOKEN.  The program that was
 * started ends when the port is listened to, so whoever started it knows.
 */
void listen_for_host(u32 port, const char *token)
{
	struct sockaddr_in address = SOCKADDR_IN(port);
	u32 on = 1;
	i64 pid;

	copy_text(host_token, token, sizeof(host_token)); /* the stack it is on will be gone */
	door = (i32)OS3(NR_SOCKET, 2, 1, 0);
	if (door < 0 || OS6(NR_SETSOCKOPT, door, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on), 0) < 0 ||
	    OS3(NR_BIND, door, &address, sizeof(address)) < 0 || OS2(NR_LISTEN, door, 1) < 0)
		die(5);
	pid = OS1(NR_FORK, 0);
	if (pid != 0)
		die(pid < 0 ? 5 : 0);
	OS1(NR_SETSID, 0);
}

/* Wait for the host; return its connection. */
static i32 let_host_in(void)
{
	u32 on = 1;
	i64 fd;

	for (;;) {
		fd = OS3(NR_ACCEPT, door, NULL, NULL);
		if (fd < 0)
			continue;
		if (reads((i32)fd, host_token, length_of(host_token)))
			break;
		OS1(NR_CLOSE, fd);
	}
	OS1(NR_CLOSE, door);
	OS6(NR_SETSOCKOPT, fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on), 0);
	OS3(NR_FCNTL, fd, F_SETFD, FD_CLOEXEC);
	return (i32)fd;
}

NORETURN void hub(void *driven)
{
	tables = map_memory(sizeof(*tables), 0);
	if (tables == NULL)
		die(6);
	self = driven;
	self->id = HUB_ID;
	watch_nosys();
	/* The connection to the host ends by end of file, after which there is something left to do. */
	ignore_signal(SIG_PIPE);
	ignore_signal(SIG_HUP);
	raise_limits();
	if (!listen_for_processes())
		die(4);
	if (door >= 0) {
		fork_ahead(self, FIRST_ID); /* which it would be asked for first, and takes long */
		hub_input = hub_output = let_host_in();
	}
	send_event(EVENT_READY, CONTROL_ID, (i32)OS1(NR_GETPID, 0), 0);
	for (;;) {
		u32 known = count;
		int must_spin = paced && frames_host_has != frames_sent;

		for (u32 i = 0; must_spin && i < PAUSES; i++)
			__asm__ volatile("pause");
		tables->polled[0] = (struct pollfd){ hub_input, POLLIN, 0 };
		tables->polled[1] = (struct pollfd){ listening, POLLIN, 0 };
		for (u32 i = 0; i < known; i++) {
			short events = tables->connections[i].kept ? POLLIN | POLLOUT : POLLIN;

			tables->polled[2 + i] = (struct pollfd){ tables->connections[i].fd, events, 0 };
		}
		if (OS3(NR_POLL, tables->polled, known + 2, must_spin ? 0 : -1) < 0)
			continue;
		/* From the last to the first: dropping one moves the last one, which is done, into its place. */
		for (u32 i = known; i-- > 0;) {
			if (tables->polled[2 + i].revents & POLLOUT && tables->connections[i].kept)
				pass_on_kept(&tables->connections[i]);
			if (tables->polled[2 + i].revents & (POLLIN | POLLHUP | POLLERR) && !receive(&tables->connections[i]))
				drop(i);
		}
		if (tables->polled[1].revents)
			accept_all();
		if (tables->polled[0].revents)
			take_input();
	}
}
