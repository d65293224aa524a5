/* A guest's side of the network under load. Addresses are numeric, of either version.
 *
 *   net send ADDRESS PORT BYTES      sends so much of the pattern, and waits for the other's end
 *   net take ADDRESS PORT            takes the pattern to its end, and tells how much it was
 *   net serve PORT                   answers each request with a short page, for ever
 *   net echo PORT SIZE               sends back each datagram, for ever
 *   net churn ADDRESS PORT PORTS COUNT
 *                                    COUNT times: connects, sends a byte, takes it back to the end
 *   net hold ADDRESS PORT COUNT      keeps COUNT connections open; again after each line
 *   net ask ADDRESS RATE SECONDS     sends so many DNS queries a second, and counts the answers
 *   net blast ADDRESS PORT SIZE RATE COUNT
 *                                    sends datagrams, and counts those that come back
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A prime: what is lost or doubled in between does not fit. */
#define PERIOD 1000003
#define NS 1000000000ll

static unsigned char pattern[PERIOD], buffer[1 << 18];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * NS + time.tv_nsec;
}

/* A socket of this kind that leads there; its error is errno's. IPv4 is reached as IPv6 has it. */
static int try_connect(const char *address, const char *port, int kind)
{
	char mapped[64];
	struct sockaddr_in6 there = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(port)) };
	snprintf(mapped, sizeof mapped, "%s%s", strchr(address, ':') ? "" : "::ffff:", address);
	if (inet_pton(AF_INET6, mapped, &there.sin6_addr) != 1)
		fail(address);
	int made = socket(AF_INET6, kind, 0);
	if (made >= 0 && connect(made, (struct sockaddr *)&there, sizeof there) != 0) {
		int error = errno;
		close(made);
		errno = error;
		made = -1;
	}
	return made;
}

static int must_connect(const char *address, const char *port, int kind)
{
	int made = try_connect(address, port, kind);
	if (made < 0)
		fail("connect");
	return made;
}

static int bound(const char *port, int kind)
{
	int one = 1, made = socket(AF_INET6, kind, 0);
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(port)) };
	setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(made, (struct sockaddr *)&any, sizeof any) != 0)
		fail("bind");
	return made;
}

static void make_pattern(void)
{
	for (uint64_t at = 0; at < PERIOD; at++)
		pattern[at] = (at * 0x9E3779B97F4A7C15ull) >> 56;
}

static void send_pattern(int to, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes;) {
		uint64_t from = at % PERIOD, count = PERIOD - from;
		if (count > bytes - at)
			count = bytes - at;
		ssize_t sent = write(to, pattern + from, count);
		if (sent <= 0)
			fail("write");
		at += sent;
	}
	shutdown(to, SHUT_WR);
	if (read(to, buffer, 1) != 0)
		fail("the other's end");
}

static void take_pattern(int from)
{
	uint64_t at = 0;
	ssize_t count;
	while ((count = read(from, buffer, sizeof buffer)) > 0) {
		for (ssize_t done = 0; done < count;) {
			uint64_t place = at % PERIOD, most = PERIOD - place;
			if (most > (uint64_t)(count - done))
				most = count - done;
			if (memcmp(buffer + done, pattern + place, most) != 0) {
				printf("wrong at %llu\n", (unsigned long long)at);
				exit(1);
			}
			done += most;
			at += most;
		}
	}
	if (count < 0)
		fail("read");
	printf("%llu bytes are right\n", (unsigned long long)at);
}

static void serve(const char *port)
{
	static const char page[] = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
	int listener = bound(port, SOCK_STREAM);
	if (listen(listener, 4096) != 0)
		fail("listen");
	puts("listens");
	fflush(stdout);
	for (;;) {
		int peer = accept(listener, NULL, NULL);
		size_t had = 0;
		while (peer >= 0) {
			ssize_t count = read(peer, buffer + had, sizeof buffer - 1 - had);
			if (count <= 0)
				break;
			buffer[had += count] = 0;
			if (strstr((char *)buffer, "\r\n\r\n")) {
				/* The next may wait for this one's end. */
				if (write(peer, page, sizeof page - 1) < 0)
					perror("write");
				break;
			}
		}
		close(peer);
	}
}

static void echo(const char *port, const char *size)
{
	int made = bound(port, SOCK_DGRAM), room = 4 << 20;
	setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
	puts("listens");
	fflush(stdout);
	for (;;) {
		struct sockaddr_in6 peer;
		socklen_t length = sizeof peer;
		ssize_t count = recvfrom(made, buffer, sizeof buffer, 0, (void *)&peer, &length);
		if (count == atoi(size))
			sendto(made, buffer, count, 0, (void *)&peer, length);
	}
}

static void churn(char **words)
{
	long ports = atol(words[2]), count = atol(words[3]), whole = 0;
	int64_t began = now(), worst = 0;
	for (long at = 0; at < count; at++) {
		char port[12];
		int64_t start = now();
		snprintf(port, sizeof port, "%ld", atol(words[1]) + at % ports);
		int made = must_connect(words[0], port, SOCK_STREAM);
		/* The other side ends it, and so waits for late segments. */
		if (write(made, "x", 1) != 1)
			fail("write");
		int good = read(made, buffer, 9) == 1 && buffer[0] == 'x' && read(made, buffer, 1) == 0;
		close(made);
		whole += good;
		if (now() - start > worst)
			worst = now() - start;
	}
	printf("%ld whole of %ld, %lld a second, worst %lld ms\n", whole, count,
	       (long long)(count * NS / (now() - began)), (long long)(worst / 1000000));
}

static void hold(char **words)
{
	struct rlimit limit = { 65536, 65536 };
	int count = atoi(words[2]), *kept = calloc(count, sizeof *kept);
	setrlimit(RLIMIT_NOFILE, &limit);
	do {
		int open = 0, reset = 0, other = 0;
		int64_t began = now();
		for (int at = 0; at < count; at++) {
			kept[at] = try_connect(words[0], words[1], SOCK_STREAM);
			if (kept[at] >= 0)
				open++;
			else if (errno == ECONNREFUSED || errno == ECONNRESET)
				reset++;
			else
				other++;
		}
		printf("open %d refused %d other %d after %lld ms\n", open, reset, other,
		       (long long)((now() - began) / 1000000));
		fflush(stdout);
		if (!fgets((char *)buffer, 99, stdin))
			return;
		for (int at = 0; at < count; at++)
			if (kept[at] >= 0)
				close(kept[at]);
	} while (fgets((char *)buffer, 99, stdin));
}

/* Takes what has come: how many. */
static long take_all(int from, size_t size, const int64_t *sent, long most, int64_t *worst)
{
	long taken = 0;
	for (;;) {
		ssize_t count = recv(from, buffer, sizeof buffer, MSG_DONTWAIT);
		uint32_t number;
		if (count < 0)
			return taken;
		memcpy(&number, buffer + 12, sizeof number);
		if ((size_t)count != size || number >= most)
			continue;
		int64_t took = now() - sent[number];
		if (took > *worst)
			*worst = took;
		taken++;
	}
}

/* Sends `count` datagrams of `size` bytes, `rate` a second, each with its number after 12 bytes. */
static void datagrams(int to, size_t size, long rate, long count)
{
	int64_t *sent = calloc(count, sizeof *sent), began = now(), worst = 0;
	int room = 4 << 20;
	long back = 0, at = 0, refused = 0;
	unsigned char *message = calloc(1, size);
	setsockopt(to, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
	/* An A query for x.test in the first bytes; of other programs they are just bytes. */
	static const unsigned char query[] = { 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0 };
	memcpy(message, query, size < sizeof query ? size : sizeof query);
	while (at < count) {
		long due = (now() - began) * rate / NS;
		for (; at < count && at < due; at++) {
			uint32_t number = at;
			message[0] = at >> 8;
			message[1] = at;
			memcpy(message + 12, &number, sizeof number);
			sent[at] = now();
			if (send(to, message, size, 0) < 0)
				refused++;
			/* Who is late sends many, and must not forget to take. */
			if (at % 16 == 0)
				back += take_all(to, size, sent, count, &worst);
		}
		back += take_all(to, size, sent, count, &worst);
		/* Not until the first answer: waking for each is most of the work. */
		usleep(1000);
	}
	int64_t end = now();
	while (now() - end < 5 * NS && back < count) {
		struct pollfd wait = { .fd = to, .events = POLLIN };
		poll(&wait, 1, 100);
		back += take_all(to, size, sent, count, &worst);
	}
	printf("%ld back of %ld, %ld refused, in %lld ms, worst %lld ms\n", back, count, refused,
	       (long long)((end - began) / 1000000), (long long)(worst / 1000000));
}

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "";
	make_pattern();
	words += 2;
	if (!strcmp(what, "send") && count == 5)
		send_pattern(must_connect(words[0], words[1], SOCK_STREAM), atoll(words[2]));
	else if (!strcmp(what, "take") && count == 4)
		take_pattern(must_connect(words[0], words[1], SOCK_STREAM));
	else if (!strcmp(what, "serve") && count == 3)
		serve(words[0]);
	else if (!strcmp(what, "echo") && count == 4)
		echo(words[0], words[1]);
	else if (!strcmp(what, "churn") && count == 6)
		churn(words);
	else if (!strcmp(what, "hold") && count == 5)
		hold(words);
	else if (!strcmp(what, "ask") && count == 5)
		datagrams(must_connect(words[0], "53", SOCK_DGRAM), 32, atol(words[1]),
			  atol(words[1]) * atol(words[2]));
	else if (!strcmp(what, "blast") && count == 7)
		datagrams(must_connect(words[0], words[1], SOCK_DGRAM), atol(words[2]),
			  atol(words[3]), atol(words[4]));
	else {
		fprintf(stderr, "net: see its source\n");
		return 2;
	}
	return 0;
}
