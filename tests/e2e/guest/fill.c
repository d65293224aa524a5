// Fills memory with words that tell their place, then changes and checks pages in random order,
// some of which it reads from a disk that its own program is on.
//
//   fill MIB SECONDS DISK
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };

static uint64_t word(uint64_t page, uint64_t version, uint64_t at)
{
	return (page * 0x9e3779b97f4a7c15u) ^ (version << 32) ^ at;
}

static void write_page(uint64_t *p, uint64_t page, uint64_t version)
{
	for (int i = 0; i < WORDS; i++)
		p[i] = word(page, version, i);
}

static void check_page(const uint64_t *p, uint64_t page, uint64_t version)
{
	for (int i = 0; i < WORDS; i++)
		if (p[i] != word(page, version, i)) {
			printf("page %lu, version %lu, word %d: %lx is wrong\n", page, version, i, p[i]);
			exit(1);
		}
}

static uint64_t random_number(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

int main(int argc, char **argv)
{
	uint64_t pages = strtoull(argv[1], NULL, 10) << 8, changes = 0, reads = 0;
	time_t seconds = atoi(argv[2]);
	int disk = open(argv[3], O_RDONLY | O_DIRECT);
	if (argc != 4 || disk < 0)
		return 2;
	uint64_t *area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t *versions = calloc(pages, 8), state = getpid();
	char *begin = aligned_alloc(PAGE, PAGE);
	if (area == MAP_FAILED || pread(disk, begin, PAGE, 0) != PAGE)
		return 2;
	for (uint64_t n = 0; n < pages; n++)
		write_page(area + n * WORDS, n, 0);
	printf("filled\n");
	fflush(stdout);
	for (time_t end = time(NULL) + seconds; time(NULL) < end; changes++) {
		uint64_t n = random_number(&state) % pages;
		uint64_t *p = area + n * WORDS;
		check_page(p, n, versions[n]);
		if (changes % 16 == 0) {
			if (pread(disk, p, PAGE, 0) != PAGE || memcmp(p, begin, PAGE) != 0) {
				printf("page %lu differs from the disk\n", n);
				return 1;
			}
			reads++;
		}
		write_page(p, n, ++versions[n]);
	}
	for (uint64_t n = 0; n < pages; n++)
		check_page(area + n * WORDS, n, versions[n]);
	printf("all right: %lu pages, %lu changes, %lu reads\n", pages, changes, reads);
	return 0;
}
