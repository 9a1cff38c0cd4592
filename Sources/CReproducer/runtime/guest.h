/* SPDX-License-Identifier: MIT */
/* The guest's own page has the code of an access for each vCPU. It is far above those of tests, in a slot without a file. */
#define GUEST_START 0x3ff00000ULL

#define GUEST_SLOT 400

#define GUEST_SIZE PAGE

struct vcpu {
	int fd;
	struct kvm_run *run;
	unsigned char *code;
	bool is_stuck;		/* an access has not been made */
};

static unsigned char *guest_memory;

/* Not copied by a fork, so that the page stays in the tables of the guest. */
static void load_guest(int vm)
{
	guest_memory = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!is(bind_slot(vm, GUEST_SLOT, 0, 0, 0, GUEST_SIZE, GUEST_START, guest_memory), "ok"))
		skip("the guest of the test cannot be loaded (%s)", strerrorname_np(errno));
}

static void discard_guest(void)
{
	munmap(guest_memory, GUEST_SIZE);
}

/* In 32-bit mode without paging: all addresses are guest-physical. */
static void create_vcpu(int vm, unsigned long number, struct vcpu *vcpu)
{
	struct kvm_segment code = { .limit = ~0U, .selector = 8, .type = 0xb, .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0U, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_sregs sregs;

	vcpu->fd = ioctl(vm, KVM_CREATE_VCPU, number);
	if (vcpu->fd < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
		skip("vcpu%lu cannot be created (%s)", number, strerrorname_np(errno));
	vcpu->run = mmap(NULL, sizeof(*vcpu->run), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.ss = data;
	sregs.cr0 = 0x11;	/* ET, PE */
	if (vcpu->run == MAP_FAILED || ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
		fail("vcpu%lu: %s", number, strerrorname_np(errno));
	vcpu->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	vcpu->code = guest_memory + 16 * number;
}

static void discard_vcpu(struct vcpu *vcpu)
{
	munmap(vcpu->run, sizeof(*vcpu->run));
	close(vcpu->fd);
	vcpu->is_stuck = false;
}

/* The flags and the address of KVM_EXIT_MEMORY_FAULT, which older versions of struct kvm_run do not have. */
static const char *end_at_fault(uint64_t flags, uint64_t gpa, int error)
{
	if (error != EFAULT)
		return outcome("%s at 0x%lx", strerrorname_np(error), gpa);
	return outcome("fault %s at 0x%lx", flags & KVM_MEMORY_EXIT_FLAG_PRIVATE ? "private" : "shared", gpa);
}

/* After an access, the guest writes to the port for its kind. */
enum { PORT_BYTE = 0xf4, PORT_DONE, PORT_CHECKED };

static const char *end_of_access(const struct kvm_run *run)
{
	const struct kvm_regs *regs = &run->s.regs.regs;

	if (run->io.port == PORT_BYTE)
		return outcome("0x%x", (unsigned int)regs->rax & 0xff);
	if (run->io.port == PORT_CHECKED && !(regs->rflags & 1 << 6 /* ZF */))
		return outcome("differs at 0x%x", (unsigned int)(regs->rdi - 1) & 0x3fffffff);
	return "ok";
}

#define enter(vcpu) ioctl((vcpu)->fd, KVM_RUN, 0)

/* Enters the guest until it has made its access, or cannot make it. */
static const char *run_vcpu(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	const uint64_t *fault = (const uint64_t *)&run->hw;
	bool is_mmio = false;
	int done;

	do {
		run->exit_reason = KVM_EXIT_UNKNOWN;
		done = enter(vcpu);
		is_mmio |= done == 0 && run->exit_reason == KVM_EXIT_MMIO;
	} while (done < 0 ? errno == EINTR || errno == EAGAIN : run->exit_reason == KVM_EXIT_MMIO);
	vcpu->is_stuck = done < 0;
	if (is_mmio)
		return "mmio";
	if (done < 0 && run->exit_reason == KVM_EXIT_MEMORY_FAULT)
		return end_at_fault(fault[0], fault[1], errno);
	if (done < 0)
		return strerrorname_np(errno);
	return run->exit_reason == KVM_EXIT_IO ? end_of_access(run) : outcome("exit %u", run->exit_reason);
}

/* Registers go to the guest and back with KVM_RUN. */
static const char *access_guest(struct vcpu *vcpu, const unsigned char *code, size_t size, struct kvm_regs regs)
{
	if (vcpu->is_stuck)
		fail("the vCPU has stopped at an access that it has not made");
	memcpy(vcpu->code, code, size);
	regs.rip = GUEST_START + (vcpu->code - guest_memory);
	regs.rflags = 2;
	vcpu->run->s.regs.regs = regs;
	vcpu->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	return run_vcpu(vcpu);
}

static const char *guest_read(struct vcpu *vcpu, uint64_t address)
{
	/* mov (%edi),%al; out %al,$PORT_BYTE */
	static const unsigned char code[] = { 0x8a, 0x07, 0xe6, PORT_BYTE };

	return access_guest(vcpu, code, sizeof(code), (struct kvm_regs){ .rdi = address });
}

static const char *guest_write(struct vcpu *vcpu, uint64_t address, unsigned char value)
{
	/* mov %al,(%edi); out %al,$PORT_DONE */
	static const unsigned char code[] = { 0x88, 0x07, 0xe6, PORT_DONE };

	return access_guest(vcpu, code, sizeof(code), (struct kvm_regs){ .rdi = address, .rax = value });
}

static const char *guest_fill(struct vcpu *vcpu, uint64_t address, uint64_t size, unsigned char value)
{
	/* rep stosb; out %al,$PORT_DONE */
	static const unsigned char code[] = { 0xf3, 0xaa, 0xe6, PORT_DONE };

	return access_guest(vcpu, code, sizeof(code),
			    (struct kvm_regs){ .rdi = address, .rcx = size, .rax = value });
}

static const char *guest_check(struct vcpu *vcpu, uint64_t address, uint64_t size, unsigned char value)
{
	/* repe scasb; out %al,$PORT_CHECKED */
	static const unsigned char code[] = { 0xf3, 0xae, 0xe6, PORT_CHECKED };

	return access_guest(vcpu, code, sizeof(code),
			    (struct kvm_regs){ .rdi = address, .rcx = size, .rax = value });
}

/* The vCPU enters again, and repeats the access that it has not made. */
static const char *repeat_access(struct vcpu *vcpu)
{
	if (!vcpu->is_stuck)
		fail("the vCPU has no access to repeat");
	return run_vcpu(vcpu);
}

/* A conversion that is in progress can take many entries. */
#define FOLLOW 10000

/* A conversion in progress causes memory faults, too: then the vCPU enters again. */
static const char *follow(struct vcpu *vcpu, const char *seen)
{
	for (int i = 1; i <= FOLLOW && is(seen, "fault *"); i++) {
		/* A thread that only enters again could keep the conversion from going on. */
		if (i % 16 == 0)
			nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
		seen = repeat_access(vcpu);
	}
	return seen;
}

/*
 * Carries out KVM_HC_MAP_GPA_RANGE. Returns 0 or a negative errno, and the page of a failure; UINT64_MAX if there is
 * none.
 */
typedef int64_t call_handler(uint64_t gpa, uint64_t pages, uint64_t attributes, uint64_t *place);

static call_handler *on_call;

#define PORT_CALL 0xe8		/* where the instruction does not exist */

/* out %eax,$PORT_CALL, or VMMCALL or VMCALL; then out %al,$PORT_DONE */
static unsigned char call_code[] = { 0xe7, PORT_CALL, 0x90, 0xe6, PORT_DONE };

static void set_call(unsigned char last)
{
	memcpy(call_code, (unsigned char[]){ 0x0f, 0x01, last }, 3);
}

/* VMMCALL and VMCALL end in the monitor on a CPU with SVM or VMX. */
static void enable_calls(int vm, call_handler *handler)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_HYPERCALL, .args = { 1 << KVM_HC_MAP_GPA_RANGE } };
	uint32_t eax, ebx, ecx, edx;

	on_call = handler;
	if (ioctl(vm, KVM_ENABLE_CAP, &cap) < 0)
		return;
	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && ecx & 1 << 2)
		set_call(0xd9);	/* VMMCALL */
	else if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & 1 << 5)
		set_call(0xc1);	/* VMCALL */
}

static const char *end_of_call(uint32_t result, uint64_t place)
{
	if (result == 0 || place == UINT64_MAX)
		return result ? strerrorname_np(-result) : "ok";
	return outcome("%s at 0x%llx", strerrorname_np(-result), (unsigned long long)place);
}

/* KVM_HC_MAP_GPA_RANGE. */
static const char *guest_call(struct vcpu *vcpu, uint64_t gpa, uint64_t pages, uint64_t attributes)
{
	struct kvm_run *run = vcpu->run;
	struct kvm_regs regs = { .rax = KVM_HC_MAP_GPA_RANGE, .rbx = gpa, .rcx = pages, .rdx = attributes };
	const char *seen = access_guest(vcpu, call_code, sizeof(call_code), regs);
	uint64_t place = UINT64_MAX;

	/* The kernel itself refuses some calls. */
	if (run->exit_reason == KVM_EXIT_HYPERCALL) {
		run->hypercall.ret = on_call(gpa, pages, attributes, &place);
		seen = run_vcpu(vcpu);
	} else if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_CALL) {
		run->s.regs.regs.rax = on_call(gpa, pages, attributes, &place);
		run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
		seen = run_vcpu(vcpu);
	}
	return is(seen, "ok") ? end_of_call(run->s.regs.regs.rax, place) : seen;
}

static const char *prefault(struct vcpu *vcpu, uint64_t gpa, uint64_t size)
{
	struct kvm_pre_fault_memory request = { .gpa = gpa, .size = size };
	int done;

	do
		done = ioctl(vcpu->fd, KVM_PRE_FAULT_MEMORY, &request);
	while (done < 0 && errno == EINTR);
	return answer(done);
}

/* KVM writes its clock to that address when the vCPU next enters. */
static const char *set_clock(struct vcpu *vcpu, uint64_t gpa)
{
	union {
		struct kvm_msrs list;
		char room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} request = { .list.nmsrs = 1 };
	int done;

	request.list.entries[0].index = 0x4b564d01;	/* MSR_KVM_SYSTEM_TIME_NEW */
	request.list.entries[0].data = gpa | 1;
	done = ioctl(vcpu->fd, KVM_SET_MSRS, &request);
	return done == 0 ? "EINVAL" : answer(done);
}

/* The statistic pages_4k of the VM: the pages in its second-stage tables. */
static long mapped_pages(int vm)
{
	int fd = ioctl(vm, KVM_GET_STATS_FD, NULL);
	uint32_t header[6];	/* flags, name_size, num_desc, id_offset, desc_offset, data_offset */
	uint64_t count = 0;
	off_t place = 0;

	if (pread(fd, header, sizeof(header), 0) != sizeof(header))
		skip("the statistics of the VM cannot be read (KVM_GET_STATS_FD)");
	for (uint32_t i = 0; i < header[2] && !place; i++) {
		uint32_t start = header[4] + i * (16 + header[1]), offset;
		char name[64] = "";

		if (pread(fd, name, sizeof(name) - 1, start + 16) > 0 && !strcmp(name, "pages_4k") &&
		    pread(fd, &offset, sizeof(offset), start + 8) == sizeof(offset))
			place = header[5] + offset;
	}
	if (!place || pread(fd, &count, sizeof(count), place) != sizeof(count))
		skip("this kernel has no statistic pages_4k");
	close(fd);
	return count;
}

/* Number of pages that have left the tables since there were `before`. */
static const char *zapped_pages(int vm, long before)
{
	long after = mapped_pages(vm);

	return as_byte(before > after ? before - after : 0);
}
