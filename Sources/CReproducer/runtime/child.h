/* SPDX-License-Identifier: MIT */
/* A forked process. It has the views that existed when it was forked, and makes one access after the other. */
struct child {
	int socket;
	pid_t pid;
};

struct child_access {
	unsigned char *view;
	uint64_t offset;
	size_t size;
	bool is_write;
	char seen[48];
	unsigned char bytes[4096];
};

static _Noreturn void serve_parent(int socket)
{
	static struct child_access access;

	while (recv(socket, &access, sizeof(access), 0) == sizeof(access)) {
		snprintf(access.seen, sizeof(access.seen), "%s",
			 copy(access.view, access.offset, access.bytes, access.size, access.is_write));
		if (send(socket, &access, sizeof(access), MSG_NOSIGNAL) != sizeof(access))
			break;
	}
	_exit(0);
}

static void fork_child(struct child *child)
{
	pid_t parent = getpid();
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		fail("socketpair: %s", strerrorname_np(errno));
	child->socket = ends[0];
	child->pid = fork();
	if (child->pid < 0)
		fail("fork: %s", strerrorname_np(errno));
	if (child->pid > 0) {
		close(ends[1]);
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || dup2(ends[1], 3) < 0)
		_exit(0);
	/* The pipes and rings of holds, too: a descriptor here would keep their pages. */
	if (syscall(SYS_close_range, 4U, ~0U, 0U) < 0)
		for (int fd = 4; fd < 4096; fd++)
			close(fd);
	serve_parent(3);
}

static void end_child(struct child *child)
{
	if (child->pid <= 0)
		return;
	close(child->socket);
	kill(child->pid, SIGKILL);
	while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
		;
	child->pid = 0;
}

/* Lets the child make one access of at most 4096 bytes. */
static const char *ask_child(const struct child *child, struct child_access *access)
{
	if (send(child->socket, access, sizeof(*access), MSG_NOSIGNAL) != sizeof(*access) ||
	    recv(child->socket, access, sizeof(*access), 0) != sizeof(*access))
		fail("the child has died");
	return outcome("%s", access->seen);
}

static const char *child_read(const struct child *child, unsigned char *view, uint64_t offset)
{
	struct child_access access = { .view = view, .offset = offset, .size = 1 };
	const char *seen = ask_child(child, &access);

	return is(seen, "ok") ? outcome("0x%x", access.bytes[0]) : seen;
}

static const char *child_fill(const struct child *child, unsigned char *view, uint64_t offset, uint64_t size,
			      unsigned char value)
{
	const char *seen = "ok";

	for (uint64_t at = offset; at < offset + size && is(seen, "ok"); at += PAGE) {
		struct child_access access = { .view = view, .offset = at, .is_write = true };

		access.size = offset + size - at < PAGE ? offset + size - at : PAGE;
		memset(access.bytes, value, sizeof(access.bytes));
		seen = ask_child(child, &access);
	}
	return seen;
}

#define child_write(child, view, offset, value) child_fill(child, view, offset, 1, value)

static const char *child_check(const struct child *child, unsigned char *view, uint64_t offset, uint64_t size,
			       unsigned char value)
{
	const char *seen = "ok";

	for (uint64_t at = offset; at < offset + size && is(seen, "ok"); at += PAGE) {
		struct child_access access = { .view = view, .offset = at };
		size_t same = 0;

		access.size = offset + size - at < PAGE ? offset + size - at : PAGE;
		memset(access.bytes, value, sizeof(access.bytes));
		seen = ask_child(child, &access);
		while (same < access.size && access.bytes[same] == value)
			same++;
		if (same < access.size)
			seen = outcome("differs at 0x%lx", at + same);
	}
	return seen;
}
