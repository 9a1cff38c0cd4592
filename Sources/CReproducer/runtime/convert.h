/* SPDX-License-Identifier: MIT */
/* The call must change nothing in the struct but error_offset, and that only if it fails. */
static const char *convert_with(int file, const struct kvm_memory_attributes2 *asked)
{
	struct kvm_memory_attributes2 request = *asked;
	int done = ioctl(file, KVM_SET_MEMORY_ATTRIBUTES2, &request), error = errno;
	bool is_written = request.error_offset != asked->error_offset;

	if (memcmp(&request, asked, 4 * sizeof(__u64)) || (done >= 0 && is_written))
		fail("the call changed its argument: error_offset 0x%llx", request.error_offset);
	if (done < 0 && (is_written || error == EAGAIN || error == ENOMEM))
		return outcome("%s at 0x%llx", strerrorname_np(error), request.error_offset);
	return done < 0 ? strerrorname_np(error) : "ok";
}

static const char *convert(int file, uint64_t offset, uint64_t size, uint64_t attributes)
{
	return convert_with(file, &(struct kvm_memory_attributes2){
		.offset = offset, .size = size, .attributes = attributes });
}

/*
 * The call with its argument in odd memory: the struct ends after `readable` bytes, behind which nothing can be
 * accessed.
 */
static const char *convert_from(int file, const struct kvm_memory_attributes2 *request, size_t readable,
				bool is_read_only)
{
	char *base = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const char *seen;

	if (base == MAP_FAILED)
		fail("mmap: %s", strerrorname_np(errno));
	memcpy(base + PAGE - readable, request, sizeof(*request));
	mprotect(base + PAGE, PAGE, PROT_NONE);
	if (is_read_only)
		mprotect(base, PAGE, PROT_READ);
	seen = answer(ioctl(file, KVM_SET_MEMORY_ATTRIBUTES2, base + PAGE - readable));
	munmap(base, 2 * PAGE);
	return seen;
}

/* KVM_SET_MEMORY_ATTRIBUTES on the VM, by guest-physical address. */
static const char *set_vm_attributes(int vm, uint64_t gpa, uint64_t size, uint64_t attributes, uint64_t flags)
{
	struct kvm_memory_attributes request = { gpa, size, attributes, flags };

	return answer(ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, &request));
}
