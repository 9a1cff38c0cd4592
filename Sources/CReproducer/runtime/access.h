/* SPDX-License-Identifier: MIT */
/* System calls make the accesses, so that a test survives a page that the host cannot access. They end there. */
static const char *copy(unsigned char *view, uint64_t offset, void *bytes, size_t size, bool is_write)
{
	struct iovec local = { bytes, size }, remote = { view + offset, size };
	ssize_t done = is_write ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0) :
				  process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	if (done < 0 && errno != EFAULT)
		return strerrorname_np(errno);
	return done == (ssize_t)size ? "ok" : outcome("SIGBUS at 0x%lx", offset + (done < 0 ? 0 : done));
}

static const char *read_byte(unsigned char *view, uint64_t offset)
{
	unsigned char value;
	const char *seen = copy(view, offset, &value, 1, false);

	return is(seen, "ok") ? outcome("0x%x", value) : seen;
}

static const char *fill(unsigned char *view, uint64_t offset, uint64_t size, unsigned char value)
{
	void *bytes = memset(malloc(size), value, size);
	const char *seen = copy(view, offset, bytes, size, true);

	free(bytes);
	return seen;
}

#define write_byte(view, offset, value) fill(view, offset, 1, value)

static const char *check(unsigned char *view, uint64_t offset, uint64_t size, unsigned char value)
{
	unsigned char *bytes = memset(malloc(size), value, size);
	const char *seen = copy(view, offset, bytes, size, false);
	uint64_t same = 0;

	while (same < size && bytes[same] == value)
		same++;
	free(bytes);
	return same < size ? outcome("differs at 0x%lx", offset + same) : seen;
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
