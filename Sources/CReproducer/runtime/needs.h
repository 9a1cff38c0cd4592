/* SPDX-License-Identifier: MIT */
/* A file on a VM of its own, if the test begins without one. */
static int scratch_file(uint64_t flags)
{
	int vm = create_vm(DEFAULT_VM);
	int file = -1;
	const char *seen = create_file(vm, &file, PAGE, flags);

	if (!is(seen, "ok"))
		skip("KVM_CREATE_GUEST_MEMFD: %s", seen);
	discard_vm(vm);
	return file;
}

static void need_no_in_place(void)
{
	int file = scratch_file(0);

	if (!is(convert(file, 0, 0, SHARED), "ENOTTY"))
		skip("this kernel converts in place");
	close(file);
}

/* Versions with content modes do without a flag. They refuse ZERO to private before they look at the range. */
static bool loses_contents(int file)
{
	struct kvm_memory_attributes2 zero = { .offset = 1ULL << 62, .size = PAGE, .attributes = PRIVATE, .flags = 1 };

	return is(convert_with(file, &zero), "EOPNOTSUPP*");
}

/* The number of NUMA nodes with memory, from a list like 0-1,4. */
static void need_nodes(unsigned long count)
{
	int fd = open("/sys/devices/system/node/has_memory", O_RDONLY | O_CLOEXEC);
	char text[256] = "", *list = text;
	unsigned long nodes = 0;

	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	while (*list >= '0' && *list <= '9') {
		unsigned long first = strtoul(list, &list, 10);
		unsigned long last = *list == '-' ? strtoul(list + 1, &list, 10) : first;

		nodes += last - first + 1;
		list += *list == ',';
	}
	if (nodes < count)
		skip("this machine has %lu NUMA nodes with memory, not %lu", nodes, count);
}
