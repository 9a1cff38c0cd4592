/* SPDX-License-Identifier: MIT */
/* A memslot of the VM, for requests of the guest. Unused if its size is 0. */
struct memslot {
	int file;
	uint64_t offset, size, gpa;
	uint32_t number;
};

static struct memslot memslots[32];

static void forget_slot(uint32_t number)
{
	for (size_t i = 0; i < COUNT(memslots); i++)
		if (memslots[i].number == number)
			memslots[i].size = 0;
}

static void note_slot(uint32_t number, int file, uint64_t offset, uint64_t size, uint64_t gpa)
{
	size_t i = 0;

	forget_slot(number);
	while (i < COUNT(memslots) && memslots[i].size)
		i++;
	if (i == COUNT(memslots))
		fail("too many memslots");
	memslots[i] = (struct memslot){ file, offset, size, gpa, number };
}

static const char *bind_noted(const char *seen, uint32_t number, int file, uint64_t offset, uint64_t size, uint64_t gpa)
{
	if (is(seen, "ok"))
		note_slot(number, file, offset, size, gpa);
	return seen;
}

static const char *unbind_noted(uint32_t number, const char *seen)
{
	if (is(seen, "ok"))
		forget_slot(number);
	return seen;
}

static const struct memslot *slot_at(uint64_t gpa)
{
	for (size_t i = 0; i < COUNT(memslots); i++)
		if (gpa >= memslots[i].gpa && gpa - memslots[i].gpa < memslots[i].size)
			return &memslots[i];
	return NULL;
}

/* The bytes of a range from `gpa` on that lie in one memslot. */
static uint64_t bytes_in(const struct memslot *slot, uint64_t gpa, uint64_t end)
{
	uint64_t left = slot->gpa + slot->size - gpa;

	return left < end - gpa ? left : end - gpa;
}

/*
 * Carries out KVM_HC_MAP_GPA_RANGE with one call for each memslot, until one fails. Bits 8 and 9 of the attributes name
 * the fate of the contents, which a software-protected VM preserves.
 */
static int64_t map_gpa_range(uint64_t gpa, uint64_t pages, uint64_t attributes, uint64_t *place)
{
	uint64_t to = attributes & KVM_MAP_GPA_RANGE_ENCRYPTED ? PRIVATE : SHARED, end = gpa + pages * PAGE;

	if (!pages || pages > UINT64_MAX / PAGE || gpa % PAGE || end < gpa || (attributes & 0xf) > 2 ||
	    attributes & ~(0x30fULL | KVM_MAP_GPA_RANGE_ENCRYPTED))
		return -EINVAL;
	for (uint64_t at = gpa; at < end; at += bytes_in(slot_at(at), at, end))
		if (!slot_at(at))
			return -EINVAL;
	for (uint64_t at = gpa; at < end; at += bytes_in(slot_at(at), at, end)) {
		const struct memslot *slot = slot_at(at);
		uint64_t offset = slot->offset + (at - slot->gpa);
		const char *seen = convert(slot->file, offset, bytes_in(slot, at, end), to);

		if (is(seen, "ok"))
			continue;
		if (is(seen, "* at *"))
			*place = at + (place_of(seen) - offset);
		return is(seen, "EAGAIN*") ? -EAGAIN : is(seen, "ENOMEM*") ? -ENOMEM : is(seen, "EBADF") ? -EBADF : -EINVAL;
	}
	return 0;
}

/* The same for a guest that may ask for zeros (bit 9), which the monitor writes after each call. */
static int64_t map_or_zero_gpa_range(uint64_t gpa, uint64_t pages, uint64_t attributes, uint64_t *place)
{
	uint64_t to = attributes & KVM_MAP_GPA_RANGE_ENCRYPTED ? PRIVATE : SHARED, end = gpa + pages * PAGE, bytes;
	bool has_slots = true;

	for (uint64_t at = gpa; at < end && has_slots; at += has_slots ? bytes_in(slot_at(at), at, end) : 0)
		has_slots = slot_at(at);
	if ((attributes & 0x300) != 0x200 || pages > UINT64_MAX / PAGE || end <= gpa || !has_slots)
		return map_gpa_range(gpa, pages, attributes, place);
	for (uint64_t at = gpa; at < end; at += bytes) {
		const struct memslot *slot = slot_at(at);
		uint64_t offset = slot->offset + (at - slot->gpa);
		unsigned char *view = mmap(NULL, offset + bytes_in(slot, at, end), PROT_READ | PROT_WRITE, MAP_SHARED,
					   slot->file, 0);
		bool *punched;
		int64_t done;

		bytes = bytes_in(slot, at, end);
		if (view == MAP_FAILED)
			return -EINVAL;
		punched = pages_to_punch(view, offset, bytes, to);
		done = map_gpa_range(at, bytes / PAGE, attributes, place);
		if (!done && !is(zero_pages(slot->file, view, offset, bytes, punched), "ok"))
			done = -EINVAL;
		free(punched);
		munmap(view, offset + bytes);
		if (done)
			return done;
	}
	return 0;
}
