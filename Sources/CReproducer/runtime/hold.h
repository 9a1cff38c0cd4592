/* SPDX-License-Identifier: MIT */
/* References on pages; -1 without one. */
struct hold {
	int fds[2];
	unsigned long context;
};

static void release_pipe(struct hold *hold)
{
	close(hold->fds[0]);
	close(hold->fds[1]);
	hold->fds[0] = hold->fds[1] = -1;
}

/* A pipe holds a reference on each page. It may take fewer at a time; the next call then says why. */
static const char *hold_by_vmsplice(struct hold *hold, unsigned char *view, uint64_t offset, uint64_t size)
{
	struct iovec rest = { view + offset, size };
	const char *seen = answer(pipe2(hold->fds, O_CLOEXEC));

	while (rest.iov_len && is(seen, "ok")) {
		ssize_t done = vmsplice(hold->fds[1], &rest, 1, SPLICE_F_NONBLOCK);

		seen = done ? answer(done) : "EAGAIN";
		rest.iov_base = (char *)rest.iov_base + done;
		rest.iov_len -= done;
	}
	if (!is(seen, "ok"))
		release_pipe(hold);
	return seen;
}

/* Skips the test if the way to take references does not exist here. */
static const char *need_holder(const char *name, const char *seen)
{
	static const char *const missing[] = { "ENOENT", "ENOSYS", "EPERM", "EACCES", "ENODEV", "ENXIO" };

	for (size_t i = 0; i < COUNT(missing); i++)
		if (is(seen, missing[i]))
			skip("holder %s is not available here (%s)", name, seen);
	return seen;
}

/* Unregisters the buffer first: a kernel thread frees a closed ring later. */
static void release_io_uring(struct hold *hold)
{
	syscall(SYS_io_uring_register, hold->fds[0], 1U /* IORING_UNREGISTER_BUFFERS */, NULL, 0U);
	close(hold->fds[0]);
	hold->fds[0] = -1;
}

/* A registered buffer of an io_uring pins its pages. */
static const char *hold_by_io_uring(struct hold *hold, unsigned char *view, uint64_t offset, uint64_t size)
{
	struct iovec buffer = { view + offset, size };
	uint64_t parameters[15] = { 0 };	/* struct io_uring_params */
	const char *seen;

	hold->fds[0] = syscall(SYS_io_uring_setup, 1U, parameters);
	if (hold->fds[0] < 0)
		return strerrorname_np(errno);
	seen = answer(syscall(SYS_io_uring_register, hold->fds[0], 0U /* IORING_REGISTER_BUFFERS */, &buffer, 1U));
	if (!is(seen, "ok"))
		release_io_uring(hold);
	return seen;
}

/* Waits until the write is complete. */
static void release_o_direct(struct hold *hold)
{
	uint64_t event[4];

	if (hold->fds[0] < 0)
		return;
	while (syscall(SYS_io_getevents, hold->context, 1L, 1L, event, NULL) < 0 && errno == EINTR)
		;
	syscall(SYS_io_destroy, hold->context);
	close(hold->fds[0]);
	hold->fds[0] = -1;
}

/* An O_DIRECT write of the pages that is in flight. The disk is null_blk with irqmode=2 and a long completion_nsec. */
static const char *hold_by_o_direct(struct hold *hold, unsigned char *view, uint64_t offset, uint64_t size)
{
	int disk = open("/dev/nullb0", O_RDWR | O_DIRECT | O_CLOEXEC);
	struct {
		uint64_t data, key;
		uint16_t opcode, priority;
		uint32_t fd;
		uint64_t buffer, length, offset, reserved;
		uint32_t flags, event;
	} request = { .opcode = 1 /* IOCB_CMD_PWRITE */, .fd = disk, .length = size };
	void *list[1] = { &request };
	long done;

	if (disk < 0)
		return strerrorname_np(errno);
	request.buffer = (uintptr_t)(view + offset);
	hold->context = 0;
	done = syscall(SYS_io_setup, 1U, &hold->context);
	if (done == 0)
		done = syscall(SYS_io_submit, hold->context, 1L, list);
	if (done == 1) {
		hold->fds[0] = disk;
		return "ok";
	}
	close(disk);
	return done < 0 ? strerrorname_np(errno) : "EAGAIN";
}

static void release_gup_test(struct hold *hold)
{
	ioctl(hold->fds[0], _IO('g', 8) /* PIN_LONGTERM_TEST_STOP */);
	close(hold->fds[0]);
	hold->fds[0] = -1;
}

/* A long-term pin by the kernel's test module. */
static const char *hold_by_gup_test(struct hold *hold, unsigned char *view, uint64_t offset, uint64_t size)
{
	struct pin_longterm_test {
		uint64_t address, size;
		uint32_t flags;
	} request = { (uintptr_t)(view + offset), size, 1 /* PIN_LONGTERM_TEST_FLAG_USE_WRITE */ };
	int fd = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	const char *seen = (request.address | size) % PAGE ? "EINVAL" : answer(fd);

	if (is(seen, "ok"))
		seen = answer(ioctl(fd, _IOW('g', 7, struct pin_longterm_test) /* PIN_LONGTERM_TEST_START */, &request));
	hold->fds[0] = fd;
	if (!is(seen, "ok"))
		close(fd);
	return seen;
}
