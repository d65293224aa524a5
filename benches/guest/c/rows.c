/* All rows of the C kernels, and what Rust calls. */
#include "bench.h"

#include <string.h>

extern const struct row row_list256k, row_list64m, row_hash, row_sha256, row_copy8, row_copysse, row_vm, row_fib,
	row_virt, row_qsort, row_tree, row_matmul, row_lz, row_str, row_bignum, row_sqlite, row_lua, row_avx2,
	row_clock;
extern const struct row row_getppid, row_read1, row_read4k, row_read64k, row_stat, row_openclose, row_mmap, row_pipe,
	row_forkwait, row_forkexec, row_filecopy, row_signal;

static const struct row *const rows[] = { &row_list256k, &row_list64m, &row_hash, &row_sha256, &row_copy8,
	&row_copysse, &row_vm, &row_fib, &row_virt, &row_qsort, &row_tree, &row_matmul, &row_lz, &row_str, &row_bignum,
	&row_sqlite, &row_lua, &row_avx2, &row_clock, &row_getppid, &row_read1, &row_read4k, &row_read64k, &row_stat,
	&row_openclose, &row_mmap, &row_pipe, &row_forkwait, &row_forkexec, &row_filecopy, &row_signal };

/* The row of this name, or null. */
const struct row *bench_row(const char *name)
{
	for (u64 i = 0; i < sizeof rows / sizeof *rows; i++)
		if (strcmp(rows[i]->name, name) == 0)
			return rows[i];
	return 0;
}

u64 bench_operations(const struct row *row) { return row->operations; }
u64 bench_run(const struct row *row) { return row->run(); }

void bench_prepare(const struct row *row)
{
	if (row->prepare)
		row->prepare();
}

void bench_finish(const struct row *row)
{
	if (row->finish)
		row->finish();
}
