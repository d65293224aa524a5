/* Control flow: a bytecode interpreter, recursion, calls through pointers. */
#include "bench.h"

enum { PUSH, ADD, SUB, MUL, LOAD, STORE, LESS, BRANCH, JUMP, DUP, XOR, HALT };

/* for (i = 0; i < 1400000; i++) sum = (sum ^ i * 3) + i - 7 */
static const int program[] = { PUSH, 0, STORE, 0, PUSH, 0, STORE, 1,
	/* 8 */ LOAD, 0, PUSH, 1400000, LESS, BRANCH, 17, JUMP, 42,
	/* 17 */ LOAD, 1, LOAD, 0, PUSH, 3, MUL, XOR, LOAD, 0, ADD, PUSH, 7, SUB, STORE, 1,
	/* 33 */ LOAD, 0, PUSH, 1, ADD, STORE, 0, JUMP, 8,
	/* 42 */ LOAD, 1, DUP, ADD, HALT };

static u64 vm_run(void)
{
	u64 stack[16], variables[2] = { 0 }, *top = stack;
	const int *code = program;
	for (;;) {
		switch (*code++) {
		case PUSH: *top++ = (u64)*code++; break;
		case ADD: top--; top[-1] += top[0]; break;
		case SUB: top--; top[-1] -= top[0]; break;
		case MUL: top--; top[-1] *= top[0]; break;
		case XOR: top--; top[-1] ^= top[0]; break;
		case LESS: top--; top[-1] = top[-1] < top[0]; break;
		case LOAD: *top++ = variables[*code++]; break;
		case STORE: variables[*code++] = *--top; break;
		case DUP: *top = top[-1]; top++; break;
		case BRANCH: code = *--top ? program + *code : code + 1; break;
		case JUMP: code = program + *code; break;
		case HALT: return top[-1];
		default: bench_fail("no such operation");
		}
	}
}

const struct row row_vm = { "vm", 1400000, 0, vm_run, 0 };

/* Not unrolled into itself by the compiler. */
__attribute__((noinline, optimize("no-optimize-sibling-calls", "no-inline"))) static u64 fib(u64 n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

#define FIB 33

static u64 fib_run(void) { return fib(FIB); }

const struct row row_fib = { "fib", 5702887, 0, fib_run, 0 };

struct shape {
	const struct methods *methods;
	u64 size;
};

struct methods {
	u64 (*area)(const struct shape *);
	u64 (*corners)(const struct shape *);
};

static u64 square_area(const struct shape *s) { return s->size * s->size; }
static u64 square_corners(const struct shape *s) { return s->size & 4; }
static u64 line_area(const struct shape *s) { return s->size >> 1; }
static u64 line_corners(const struct shape *s) { return s->size + 2; }
static u64 cube_area(const struct shape *s) { return 6 * s->size; }
static u64 cube_corners(const struct shape *s) { return s->size ^ 8; }
static u64 disc_area(const struct shape *s) { return s->size * 355 / 113; }
static u64 disc_corners(const struct shape *s) { return ~s->size; }

static const struct methods kinds[4] = { { square_area, square_corners }, { line_area, line_corners },
	{ cube_area, cube_corners }, { disc_area, disc_corners } };

#define SHAPES 1024UL
#define VIRT_ROUNDS 2000UL

static struct shape *shapes;

static void virt_prepare(void)
{
	u64 seed = 17;
	shapes = bench_alloc(SHAPES * sizeof *shapes);
	for (u64 i = 0; i < SHAPES; i++)
		shapes[i] = (struct shape){ &kinds[bench_random(&seed) >> 62], i };
}

static void virt_finish(void) { bench_free(shapes, SHAPES * sizeof *shapes); }

static u64 virt_run(void)
{
	u64 sum = 0;
	for (u64 round = 0; round < VIRT_ROUNDS; round++)
		for (u64 i = 0; i < SHAPES; i++)
			sum += shapes[i].methods->area(&shapes[i]) ^ shapes[i].methods->corners(&shapes[i]);
	return sum;
}

const struct row row_virt = { "virt", SHAPES * VIRT_ROUNDS * 2, virt_prepare, virt_run, virt_finish };
