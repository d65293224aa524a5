/* Sockets between guest and host.
 *
 *   vsock listen PORT          sends back what the first who connects sends, to its end
 *   vsock connect PORT BYTES   sends so many bytes to the host, and compares what comes back
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

static char buffer[65536];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void write_all(int to, const char *bytes, size_t count)
{
	while (count > 0) {
		ssize_t written = write(to, bytes, count);
		if (written <= 0)
			fail("write");
		bytes += written;
		count -= written;
	}
}

/* Byte `at` of the stream that is sent. */
static unsigned char byte(uint64_t at)
{
	return (at * 0x9E3779B97F4A7C15ull) >> 56;
}

static void echo(int connection)
{
	ssize_t count;
	while ((count = read(connection, buffer, sizeof buffer)) > 0)
		write_all(connection, buffer, count);
	if (count < 0)
		fail("read");
	/* Half of it is closed; the other side may still read. */
	shutdown(connection, SHUT_WR);
	if (read(connection, buffer, 1) != 0)
		fail("a byte after the end");
}

static void send_and_compare(int connection, uint64_t bytes)
{
	pid_t sender = fork();
	if (sender == 0) {
		for (uint64_t at = 0; at < bytes;) {
			size_t count = 0;
			while (count < sizeof buffer && at < bytes)
				buffer[count++] = byte(at++);
			write_all(connection, buffer, count);
		}
		shutdown(connection, SHUT_WR);
		exit(0);
	}
	uint64_t at = 0;
	ssize_t count;
	while ((count = read(connection, buffer, sizeof buffer)) > 0)
		for (ssize_t i = 0; i < count; i++)
			if ((unsigned char)buffer[i] != byte(at++)) {
				printf("byte %llu is another\n", (unsigned long long)at - 1);
				exit(1);
			}
	if (count < 0)
		fail("read");
	waitpid(sender, 0, 0);
	printf("%llu bytes came back\n", (unsigned long long)at);
	exit(at != bytes);
}

int main(int argc, char **argv)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK };
	int listens = argc > 2 && !strcmp(argv[1], "listen");
	int s = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (s < 0)
		fail("socket");
	if (argc < 3)
		return 2;
	address.svm_port = atoi(argv[2]);
	if (listens) {
		address.svm_cid = VMADDR_CID_ANY;
		if (bind(s, (struct sockaddr *)&address, sizeof address) || listen(s, 8))
			fail("listen");
		puts("listens");
		fflush(stdout);
		int connection = accept(s, 0, 0);
		if (connection < 0)
			fail("accept");
		echo(connection);
	} else {
		address.svm_cid = VMADDR_CID_HOST;
		if (connect(s, (struct sockaddr *)&address, sizeof address))
			fail("connect");
		send_and_compare(s, strtoull(argv[3], 0, 10));
	}
	return 0;
}
