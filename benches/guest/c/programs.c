/* Programs of others: SQLite and Lua. */
#include "bench.h"

#include <sqlite3.h>

/* Lua's interface as its manual gives it (5.4, chapters 4 and 5): the crate that brings Lua has no header to offer. */
typedef struct lua_State lua_State;
lua_State *luaL_newstate(void);
void luaL_openlibs(lua_State *);
int luaL_loadstring(lua_State *, const char *text);
int lua_pcallk(lua_State *, int arguments, int results, int handler, i64 context, void *continuation);
long long lua_tointegerx(lua_State *, int index, int *is_integer);
const char *lua_tolstring(lua_State *, int index, unsigned long *length);
void lua_close(lua_State *);

static sqlite3 *database;

static void sql(const char *text)
{
	if (sqlite3_exec(database, text, 0, 0, 0) != SQLITE_OK)
		bench_fail(sqlite3_errmsg(database));
}

static sqlite3_stmt *prepared(const char *text)
{
	sqlite3_stmt *statement;
	if (sqlite3_prepare_v2(database, text, -1, &statement, 0) != SQLITE_OK)
		bench_fail(sqlite3_errmsg(database));
	return statement;
}

#define ROWS 8000

static void sqlite_insert(void)
{
	sqlite3_stmt *insert = prepared("INSERT INTO part VALUES (?, ?, ?, ?)");
	u64 seed = 71;
	sql("BEGIN");
	for (int i = 0; i < ROWS; i++) {
		u64 random = bench_random(&seed);
		char name[] = "part-........";
		for (int c = 0; c < 8; c++)
			name[5 + c] = (char)('a' + (random >> (8 * c)) % 26);
		sqlite3_bind_int(insert, 1, i);
		sqlite3_bind_text(insert, 2, name, -1, SQLITE_STATIC);
		sqlite3_bind_int(insert, 3, (int)(random >> 40) % 100);
		sqlite3_bind_double(insert, 4, (double)(random >> 48) / 8);
		if (sqlite3_step(insert) != SQLITE_DONE)
			bench_fail(sqlite3_errmsg(database));
		sqlite3_reset(insert);
	}
	sql("COMMIT");
	sqlite3_finalize(insert);
}

/* All columns of all rows, in one sum. */
static u64 sqlite_sum(const char *text)
{
	sqlite3_stmt *query = prepared(text);
	u64 sum = 0;
	while (sqlite3_step(query) == SQLITE_ROW)
		for (int column = 0; column < sqlite3_column_count(query); column++)
			for (const unsigned char *c = sqlite3_column_text(query, column); c && *c; c++)
				sum = bench_mix(sum, *c);
	sqlite3_finalize(query);
	return sum;
}

static u64 sqlite_round(void)
{
	u64 sum;
	if (sqlite3_open(":memory:", &database) != SQLITE_OK)
		bench_fail("SQLite does not open");
	sql("CREATE TABLE part (id INTEGER PRIMARY KEY, name TEXT, kind INTEGER, price REAL)");
	sqlite_insert();
	sql("CREATE INDEX by_name ON part (name)");
	sum = sqlite_sum("SELECT kind, count(*), sum(price), min(name) FROM part GROUP BY kind");
	sum ^= sqlite_sum("SELECT id, name FROM part WHERE name BETWEEN 'part-d' AND 'part-h' ORDER BY name LIMIT 400");
	sql("UPDATE part SET price = price * 2, name = upper(name) WHERE kind < 10");
	sum ^= sqlite_sum("SELECT a.id, b.id FROM part a JOIN part b ON b.id = a.id * 3 WHERE a.kind = 7");
	sql("DELETE FROM part WHERE id % 5 = 0");
	sum ^= sqlite_sum("SELECT count(*), sum(length(name)), total(price) FROM part WHERE name LIKE '%ab%'");
	sqlite3_close(database);
	return sum;
}

#define ROUNDS 2

static u64 sqlite_run(void)
{
	u64 sum = 0;
	for (int round = 0; round < ROUNDS; round++)
		sum = bench_mix(sum, sqlite_round());
	return sum;
}

const struct row row_sqlite = { "sqlite", ROUNDS, 0, sqlite_run, 0 };

static const char script[] =
	"local sum = 0\n"
	"local function mix(v) sum = ((sum ~ v) * 1099511628211) & 0x7fffffffffffffff end\n"
	"local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n"
	"mix(fib(20))\n"
	"local t, seed = {}, 42\n"
	"for i = 1, 6000 do seed = (seed * 1103515245 + 12345) & 0x7fffffff; t[i] = seed end\n"
	"table.sort(t)\n"
	"mix(t[1]) mix(t[3000]) mix(t[6000])\n"
	"local words = {}\n"
	"for i = 1, 3000 do words[#words + 1] = string.format('w%d', t[i] % 512) end\n"
	"local count = {}\n"
	"for w in table.concat(words, ' '):gmatch('%a%d+') do count[w] = (count[w] or 0) + 1 end\n"
	"for i = 0, 511 do mix(count['w' .. i] or 0) end\n"
	"local Point = {}\n"
	"Point.__index = Point\n"
	"function Point.new(x, y) return setmetatable({x = x, y = y}, Point) end\n"
	"function Point:add(o) return Point.new(self.x + o.x, self.y + o.y) end\n"
	"local p = Point.new(0.5, 1.5)\n"
	"for i = 1, 20000 do p = p:add(Point.new(1, 2)) end\n"
	"mix(math.floor(p.x)) mix(math.floor(p.y))\n"
	"local sieve = {}\n"
	"for i = 2, 20000 do if not sieve[i] then for j = i * i, 20000, i do sieve[j] = true end mix(i) end end\n"
	"local function counter() local n = 0; return function() n = n + 1; return n end end\n"
	"local c = counter()\n"
	"for i = 1, 50000 do c() end\n"
	"mix(c())\n"
	"local s = ('abc'):rep(2000):gsub('b', function(x) return x:upper() end)\n"
	"mix(#s) mix(s:byte(2))\n"
	"return sum\n";

static u64 lua_round(void)
{
	lua_State *lua = luaL_newstate();
	u64 sum;
	if (!lua)
		bench_fail("Lua does not start");
	luaL_openlibs(lua);
	if (luaL_loadstring(lua, script) != 0 || lua_pcallk(lua, 0, 1, 0, 0, 0) != 0)
		bench_fail(lua_tolstring(lua, -1, 0));
	sum = (u64)lua_tointegerx(lua, -1, 0);
	lua_close(lua);
	return sum;
}

static u64 lua_run(void)
{
	u64 sum = 0;
	for (int round = 0; round < ROUNDS; round++)
		sum = bench_mix(sum, lua_round());
	return sum;
}

const struct row row_lua = { "lua", ROUNDS, 0, lua_run, 0 };
