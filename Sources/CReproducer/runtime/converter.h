/* SPDX-License-Identifier: MIT */
/*
 * The pages of a range that are zeroed with a hole: those that become private, and those that are private before, since
 * nothing holds them. The host cannot read a private page.
 */
static bool *pages_to_punch(unsigned char *view, uint64_t offset, uint64_t size, uint64_t to)
{
	bool *punched = calloc(size / PAGE, sizeof(*punched));
	unsigned char byte;

	for (uint64_t page = 0; page < size / PAGE; page++)
		punched[page] = to == PRIVATE || !is(copy(view, offset + page * PAGE, &byte, 1, false), "ok");
	return punched;
}

/* Zeroes converted pages. One that was and is shared is overwritten, because a holder would keep the old page. */
static const char *zero_pages(int file, unsigned char *view, uint64_t offset, uint64_t size, const bool *punched)
{
	static unsigned char zeros[PAGE];

	for (uint64_t page = 0; page < size / PAGE; page++) {
		uint64_t at = offset + page * PAGE;
		const char *seen = punched[page] ? punch_hole(file, at, PAGE) : copy(view, at, zeros, PAGE, true);

		if (!is(seen, "ok"))
			return is(seen, "* at *") ? seen : outcome("%s at 0x%lx", seen, at);
	}
	return "ok";
}

/* A monitor that promises zeros writes them when the pages have been converted. */
static const char *convert_and_zero(int file, unsigned char *view, uint64_t offset, uint64_t size, uint64_t to)
{
	bool *punched = pages_to_punch(view, offset, size, to);
	const char *seen = convert(file, offset, size, to);

	if (is(seen, "ok"))
		seen = zero_pages(file, view, offset, size, punched);
	free(punched);
	return seen;
}

/* A monitor makes a call for each piece of the range, so that none holds the file's lock for long. */
static const char *convert_in_pieces(int file, uint64_t offset, uint64_t size, uint64_t to, uint64_t piece)
{
	const char *seen = "ok";

	for (uint64_t end = offset + size; offset < end && is(seen, "ok"); offset += piece)
		seen = convert(file, offset, end - offset < piece ? end - offset : piece, to);
	return seen;
}

/* How a monitor carries out a request: the fate of the contents, and what it does about pages in use. */
struct policy {
	bool zeroes;
	int attempts;		/* calls for a piece before it gives up */
	uint64_t chunk;		/* bytes of the largest call */
	bool bisects;		/* converts around pages in use, and tries them again later */
};

/* Guest memory: a part of a file. Outcomes have guest-physical addresses. view is of the whole file. */
struct part {
	int file;
	unsigned char *view;
	uint64_t offset, size, gpa;
};

static uint64_t place_of(const char *seen)
{
	const char *place = strstr(seen, " at ");

	return place ? strtoull(place + 4, NULL, 16) : 0;
}

static const char *convert_piece(const struct part *part, uint64_t offset, uint64_t size, uint64_t to,
				 const struct policy *policy)
{
	if (policy->zeroes)
		return convert_and_zero(part->file, part->view, offset, size, to);
	return convert(part->file, offset, size, to);
}

/* A page in use that the monitor has converted around. */
struct parked_page {
	const struct part *part;
	uint64_t offset;
};

static struct parked_page parked[4096];

static size_t parked_count;

static const char *convert_around(const struct part *part, uint64_t offset, uint64_t size, uint64_t to,
				  const struct policy *policy)
{
	const char *seen = convert_piece(part, offset, size, to, policy);
	uint64_t page = place_of(seen) & ~(PAGE - 1);

	if (!is(seen, "EAGAIN at *"))
		return seen;
	if (parked_count == COUNT(parked))
		fail("too many pages in use");
	parked[parked_count++] = (struct parked_page){ part, page };
	seen = "ok";
	if (page > offset)
		seen = convert_around(part, offset, page - offset, to, policy);
	if (is(seen, "ok") && page + PAGE < offset + size)
		seen = convert_around(part, page + PAGE, offset + size - page - PAGE, to, policy);
	return seen;
}

static void back_off(int attempt)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000L << (attempt < 7 ? attempt : 7) }, NULL);
}

/* Tries the parked pages again, in rounds. */
static const char *convert_parked(uint64_t to, const struct policy *policy)
{
	for (int attempt = 1; parked_count; attempt++) {
		uint64_t lowest = UINT64_MAX;
		size_t left = 0;

		for (size_t i = 0; i < parked_count; i++) {
			const struct part *part = parked[i].part;
			const char *seen = convert_piece(part, parked[i].offset, PAGE, to, policy);
			uint64_t gpa = part->gpa + (parked[i].offset - part->offset);

			if (is(seen, "ok"))
				continue;
			if (!is(seen, "EAGAIN at *"))
				return seen;
			lowest = gpa < lowest ? gpa : lowest;
			parked[left++] = parked[i];
		}
		parked_count = left;
		if (left && attempt >= policy->attempts)
			return outcome("EAGAIN at 0x%lx", lowest);
		if (left)
			back_off(attempt);
	}
	return "ok";
}

static const char *convert_part(const struct part *part, uint64_t to, const struct policy *policy)
{
	uint64_t offset = part->offset, end = part->offset + part->size;
	int attempt = 1;

	while (offset < end) {
		uint64_t size = end - offset < policy->chunk ? end - offset : policy->chunk;
		const char *seen;

		if (policy->bisects)
			seen = convert_around(part, offset, size, to, policy);
		else
			seen = convert_piece(part, offset, size, to, policy);
		if (is(seen, "EAGAIN at *") && attempt < policy->attempts) {
			back_off(attempt++);
			continue;
		}
		if (is(seen, "* at *"))
			return outcome("%.*s at 0x%llx", (int)strcspn(seen, " "), seen,
				       (unsigned long long)(part->gpa + (place_of(seen) - part->offset)));
		if (!is(seen, "ok"))
			return seen;
		offset += size;
		attempt = 1;
	}
	return "ok";
}

/*
 * Converts guest memory that lies in several files. After a failure, the parts already converted stay converted.
 */
static const char *convert_parts(const struct part *parts, size_t count, uint64_t to, const struct policy *policy)
{
	const char *seen = "ok";

	parked_count = 0;
	for (size_t i = 0; i < count && is(seen, "ok"); i++)
		seen = convert_part(&parts[i], to, policy);
	return is(seen, "ok") ? convert_parked(to, policy) : seen;
}
