/* SPDX-License-Identifier: MIT */
#define PAGE 4096ULL

#define PRIVATE KVM_MEMORY_ATTRIBUTE_PRIVATE

#define SHARED 0ULL

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

#define pass() (printf("ok 1 - %s\n", TEST_NAME), exit(0))

#define skip(...) (printf("ok 1 - %s # SKIP ", TEST_NAME), printf(__VA_ARGS__), printf("\n"), exit(4))

#define fail(...) (printf("# "), printf(__VA_ARGS__), printf("\nnot ok 1 - %s\n", TEST_NAME), exit(1))

static void begin(void)
{
	struct utsname kernel = { 0 };

	uname(&kernel);
	printf("KTAP version 1\n1..1\n# Linux %s\n", kernel.release);
	alarm(300);
}

static char texts[256][48];
static unsigned int text_count;

/* How a step ended: "ok", "0x41", "SIGBUS at 0x0", "EAGAIN at 0x2000". A vCPU has guest-physical addresses. */
#define next_text() texts[__atomic_fetch_add(&text_count, 1, __ATOMIC_RELAXED) % 256]
#define outcome(...) ({ char *text = next_text(); snprintf(text, 48, __VA_ARGS__); text; })

static const char *answer(long result)
{
	return result < 0 ? strerrorname_np(errno) : "ok";
}

/* A pattern is one of fnmatch(3), with alternatives as @(ok|EBUSY). */
static bool is(const char *seen, const char *pattern)
{
	return !fnmatch(pattern, seen, FNM_EXTMATCH);
}

static void expect_outcome(int line, const char *step, const char *seen, const char *expected)
{
	if (is(seen, expected))
		return;
	if (is(seen, "ENOTTY"))
		skip("this kernel does not have a call of the test: %s", step);
	fail("line %d: %s\n# seen %s, expected %s", line, step, seen, expected);
}

#define expect(step, expected) expect_outcome(__LINE__, #step, step, expected)

/* The outcome of a step that is repeated for each page. Returns false when one ends otherwise than the first. */
static bool goes_on(const char **all, const char *seen, uint64_t at, bool is_first)
{
	bool is_byte = !strncmp(seen, "0x", 2);

	if (is(seen, "ok") || (is_byte && (is_first || !strcmp(seen, *all)))) {
		*all = seen;
		return true;
	}
	if (is_byte)
		*all = outcome("differs at 0x%lx", at);
	else
		*all = is(seen, "* at *") ? seen : outcome("%s at 0x%lx", seen, at);
	return false;
}
