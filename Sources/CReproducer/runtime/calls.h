/* SPDX-License-Identifier: MIT */
/* io_uring task work can interrupt fallocate(). The pages allocated so far stay, and the call is repeated. */
static const char *allocate_with(int file, int mode, uint64_t offset, uint64_t size)
{
	int done;

	do
		done = fallocate(file, FALLOC_FL_KEEP_SIZE | mode, offset, size);
	while (done < 0 && errno == EINTR);
	return answer(done);
}

static const char *allocate(int file, uint64_t offset, uint64_t size)
{
	return allocate_with(file, 0, offset, size);
}

static const char *punch_hole(int file, uint64_t offset, uint64_t size)
{
	return allocate_with(file, FALLOC_FL_PUNCH_HOLE, offset, size);
}

/* The call needs a kernel option, or a privilege. */
static const char *need_call(const char *seen)
{
	if (is(seen, "ENOSYS") || is(seen, "EPERM") || is(seen, "EOPNOTSUPP"))
		skip("this kernel does not support a call of the test, or this user may not make it (%s)", seen);
	return seen;
}

/* SIGBUS reports the failure. The thread that asked for it goes on. */
static void ignore_memory_failure(int signal)
{
	(void)signal;
}

/* Makes the memory of the first page of a range fail. It stays unusable until the next boot. */
static const char *fail_memory(unsigned char *view, uint64_t offset, uint64_t size, int advice)
{
	struct sigaction action = { .sa_handler = ignore_memory_failure }, before;
	const char *seen;

	sigaction(SIGBUS, &action, &before);
	seen = answer(madvise(view + offset, size, advice));
	sigaction(SIGBUS, &before, NULL);
	if (is(seen, "EINVAL") && offset % PAGE == 0)
		skip("this kernel cannot make memory fail");
	return need_call(seen);
}

/* node is -1 for a policy without a node. */
static const char *set_policy(unsigned char *view, uint64_t offset, uint64_t size, int mode, int node,
			      unsigned int flags)
{
	unsigned long nodes[16] = { 0 };
	const int bits = 8 * sizeof(*nodes);

	if (node >= bits * (int)COUNT(nodes))
		return "EINVAL";
	if (node >= 0)
		nodes[node / bits] = 1UL << node % bits;
	return answer(syscall(SYS_mbind, view + offset, size, mode, node < 0 ? NULL : nodes,
			      node < 0 ? 0UL : bits * COUNT(nodes), flags));
}

/* node is -1 to ask for the page's node. */
static const char *move_page(unsigned char *view, uint64_t offset, int node)
{
	void *pages[1] = { view + offset };
	int status = -ENOENT, move = 1 << 1 /* MPOL_MF_MOVE */;
	long left = syscall(SYS_move_pages, 0, 1UL, pages, node < 0 ? NULL : &node, &status, move);

	if (left < 0)
		return strerrorname_np(errno);
	if (left > 0)
		return "EBUSY";
	if (status < 0)
		return strerrorname_np(-status);
	return node < 0 ? outcome("0x%x", status) : "ok";
}

/* One bit for each of at most eight pages. */
static const char *dirty_log(int vm, uint32_t slot)
{
	static uint64_t bits[1 << 10];
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bits };
	int done = ioctl(vm, KVM_GET_DIRTY_LOG, &log);

	return done < 0 ? strerrorname_np(errno) : outcome("0x%x", (unsigned int)bits[0] & 0xff);
}

/* A number as a byte. */
static const char *as_byte(long value)
{
	return value < 0 ? strerrorname_np(errno) : outcome("0x%lx", value < 255 ? value : 255);
}

/* Number of pages of a range that are in the page tables of this process. */
static const char *present_pages(const unsigned char *view, uint64_t offset, uint64_t size)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t start = (uintptr_t)view + offset, word;
	long count = 0;

	for (uint64_t page = start / PAGE; page < (start + size + PAGE - 1) / PAGE; page++) {
		if (pread(fd, &word, sizeof(word), page * sizeof(word)) != sizeof(word))
			skip("/proc/self/pagemap cannot be read here");
		count += word >> 63;
	}
	close(fd);
	return as_byte(count);
}

static const char *read_from_file(int file)
{
	char bytes[1];

	return answer(read(file, bytes, 1));
}

static const char *map_file_private(int file)
{
	void *at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, file, 0);

	if (at == MAP_FAILED)
		return strerrorname_np(errno);
	munmap(at, PAGE);
	return "ok";
}
