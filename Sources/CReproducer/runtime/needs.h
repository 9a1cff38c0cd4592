/* SPDX-License-Identifier: MIT */
/* A file on a VM of its own, if the test begins without one. */
static int scratch_file(uint64_t flags)
{
	int vm = create_vm(DEFAULT_VM), file = -1;
	const char *seen = create_file(vm, &file, PAGE, flags);

	if (!is(seen, "ok"))
		skip("KVM_CREATE_GUEST_MEMFD: %s", seen);
	close(vm);
	return file;
}

static void need_no_in_place(void)
{
	int file = scratch_file(0);

	if (!is(convert(file, 0, 0, SHARED), "ENOTTY"))
		skip("this kernel converts in place");
	close(file);
}

/* ZERO to private, which versions with content modes refuse. Without a flag they lose the contents. */
#define ZERO_FLAG (&(struct kvm_memory_attributes2){ .size = PAGE, .attributes = PRIVATE, .flags = 1 })

/* The number of NUMA nodes with memory, from a list like 0-1,4. */
static void need_nodes(unsigned int count)
{
	int fd = open("/sys/devices/system/node/has_memory", O_RDONLY | O_CLOEXEC), first, last, length;
	char text[256] = "", *list = text;
	unsigned int nodes = 0;

	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	while (sscanf(list, "%d%n", &first, &length) == 1) {
		list += length;
		last = first;
		if (sscanf(list, "-%d%n", &last, &length) == 1)
			list += length;
		nodes += last - first + 1;
		list += *list == ',';
	}
	if (nodes < count)
		skip("this machine has %u NUMA nodes with memory, not %u", nodes, count);
}
