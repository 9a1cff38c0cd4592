/* SPDX-License-Identifier: MIT */
static int create_vm(unsigned long type)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, type);

	if (vm < 0)
		skip("KVM_CREATE_VM, type %lu: %s", type, strerrorname_np(errno));
	close(kvm);
	return vm;
}

static void discard_vm(int vm)
{
	close(vm);
}

static const char *create_file(int vm, int *file, uint64_t size, uint64_t flags)
{
	struct kvm_create_guest_memfd request = { .size = size, .flags = flags };

	*file = ioctl(vm, KVM_CREATE_GUEST_MEMFD, &request);
	return answer(*file);
}

static const char *map_file(int file, uint64_t offset, uint64_t size, unsigned char **view)
{
	*view = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, offset);
	return answer(*view == MAP_FAILED ? -1 : 0);
}

static const char *bind_slot(int vm, uint32_t slot, uint32_t flags, int file, uint64_t offset, uint64_t size,
			     uint64_t gpa, void *address)
{
	struct kvm_userspace_memory_region2 region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (uintptr_t)address, .guest_memfd = file, .guest_memfd_offset = offset,
	};

	return answer(ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region));
}

/* A guest_memfd with a view of all of it. */
static void create_memory(int vm, int *file, unsigned char **view, uint64_t size, uint64_t flags)
{
	struct kvm_create_guest_memfd request = { .size = size, .flags = GUEST_MEMFD_FLAG_MMAP | flags };

	*file = ioctl(vm, KVM_CREATE_GUEST_MEMFD, &request);
	if (*file >= 0)
		*view = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *file, 0);
	if (*file < 0 || *view == MAP_FAILED)
		skip("this kernel has no guest_memfd that the host can map (%s)", strerrorname_np(errno));
}

static const char *delete_slot(int vm, uint32_t slot)
{
	return bind_slot(vm, slot, KVM_MEM_GUEST_MEMFD, 0, 0, 0, 0, NULL);
}

/* A descriptor whose number no other file gets after it is closed: the kernel hands out the lowest free one. */
static const char *duplicate_file(int file, int *duplicate)
{
	static int next = 512;
	int fd = fcntl(file, F_DUPFD_CLOEXEC, next);

	if (fd >= 0)
		*duplicate = fd;
	next = fd + 1 > next ? fd + 1 : next;
	return answer(fd);
}

/* Moves the descriptor of a file that is used after it is closed to such a number. */
static void reserve_descriptor(int *file)
{
	int old = *file;

	if (old >= 0 && is(duplicate_file(old, file), "ok"))
		close(old);
}

/* An address that nothing has been mapped at, and that mmap does not choose by itself. */
static void *unused_address(uint64_t size)
{
	static uint64_t next = 1ULL << 45;
	uint64_t room = (size + 3 * PAGE - 1) & ~(PAGE - 1);

	return (void *)(uintptr_t)__atomic_fetch_add(&next, room, __ATOMIC_RELAXED);
}

/* Like map_file(), at an address that is never used again after the view is unmapped. */
static const char *map_alone(int file, uint64_t offset, uint64_t size, unsigned char **view)
{
	int flags = MAP_SHARED | MAP_NORESERVE | (size ? MAP_FIXED_NOREPLACE : 0);

	*view = mmap(size ? unused_address(size) : NULL, size, PROT_READ | PROT_WRITE, flags, file, offset);
	return answer(*view == MAP_FAILED ? -1 : 0);
}

static const char *remap_view(unsigned char *view, uint64_t size, uint64_t new_size, unsigned char **moved)
{
	*moved = mremap(view, size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, unused_address(new_size));
	return answer(*moved == MAP_FAILED ? -1 : 0);
}
