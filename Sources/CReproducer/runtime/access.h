/* SPDX-License-Identifier: MIT */
/* System calls make the accesses, so that a test survives a page that the host cannot access. */
static ssize_t copy(void *at, void *buffer, size_t size, bool is_write)
{
	struct iovec local = { buffer, size }, remote = { at, size };

	return is_write ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0) :
			  process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
}

static const char *read_byte(unsigned char *view, uint64_t offset)
{
	unsigned char value;

	if (copy(view + offset, &value, 1, false) == 1)
		return outcome("0x%x", value);
	return errno == EFAULT ? "SIGBUS" : strerrorname_np(errno);
}

/* The end of an access to a range. The kernel copies up to the first page that the host cannot access. */
static const char *end_of_access(uint64_t offset, uint64_t size, ssize_t done)
{
	if (done == (ssize_t)size)
		return "ok";
	if (done < 0 && errno != EFAULT)
		return strerrorname_np(errno);
	return outcome("SIGBUS at 0x%lx", offset + (done < 0 ? 0 : done));
}

static const char *fill(unsigned char *view, uint64_t offset, uint64_t size, unsigned char value)
{
	void *bytes = memset(malloc(size), value, size);
	const char *seen = end_of_access(offset, size, copy(view + offset, bytes, size, true));

	free(bytes);
	return seen;
}

#define write_byte(view, offset, value) fill(view, offset, 1, value)

static const char *check(unsigned char *view, uint64_t offset, uint64_t size, unsigned char value)
{
	unsigned char *bytes = malloc(size);
	ssize_t done = copy(view + offset, bytes, size, false), same = 0;

	while (same < done && bytes[same] == value)
		same++;
	free(bytes);
	return same < done ? outcome("differs at 0x%lx", offset + same) : end_of_access(offset, size, done);
}

static const char *peek(const unsigned char *view, uint64_t offset)
{
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	unsigned char value;
	ssize_t count = pread(fd, &value, 1, (uintptr_t)view + offset);
	const char *seen = count == 1 ? outcome("0x%x", value) : answer(count);

	close(fd);
	return seen;
}
