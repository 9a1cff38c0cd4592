/* SPDX-License-Identifier: MIT */
/* The guest's memory for itself: far above that of tests, one file, one memslot. */
#define GUEST_START 0x3ff00000ULL

#define GUEST_SLOT 400

#define TABLES (1 * PAGE)	/* behind the code: three levels; two GiB, each the first of physical memory */

#define ORDERS (5 * PAGE)

#define GUEST_SIZE (6 * PAGE)

/* In the guest-physical addresses of its own memory. */
#define GUEST_BIT 0ULL

/* Written by the monitor before it enters the guest, which reads it at RBP. */
struct order {
	uint32_t address;
	uint32_t count;		/* bytes, or pages for a hypercall */
	uint8_t byte;
	uint8_t operation;
	uint16_t unused;
	uint32_t attributes;
};

enum { ORDER_READ, ORDER_WRITE, ORDER_FILL, ORDER_CHECK, ORDER_CALL_BY_PORT, ORDER_VMMCALL, ORDER_VMCALL };

#define PORT_CALL 0xe8		/* KVM_HC_MAP_GPA_RANGE where the instruction does not exist */

#define PORT_BYTE 0xf4

static const unsigned char guest_code[] = {
	0x8b, 0x7d, 0x00,		/* 00 next:    mov 0x0(%rbp),%edi	the address */
	0x8b, 0x4d, 0x04,		/* 03          mov 0x4(%rbp),%ecx	the count */
	0x8b, 0x45, 0x08,		/* 06          mov 0x8(%rbp),%eax	AL the byte, AH the operation */
	0x80, 0xfc, 0x00,		/* 09          cmp $ORDER_READ,%ah */
	0x74, 0x2e,			/* 0c          je read */
	0x80, 0xfc, 0x01,		/* 0e          cmp $ORDER_WRITE,%ah */
	0x74, 0x2f,			/* 11          je write */
	0x80, 0xfc, 0x02,		/* 13          cmp $ORDER_FILL,%ah */
	0x74, 0x2e,			/* 16          je fill */
	0x80, 0xfc, 0x03,		/* 18          cmp $ORDER_CHECK,%ah */
	0x74, 0x2f,			/* 1b          je check */
	0x89, 0xfb,			/* 1d          mov %edi,%ebx */
	0x8b, 0x55, 0x0c,		/* 1f          mov 0xc(%rbp),%edx	the attributes */
	0x80, 0xfc, 0x05,		/* 22          cmp $ORDER_VMMCALL,%ah */
	0xb8, 0x0c, 0x00, 0x00, 0x00,	/* 25          mov $KVM_HC_MAP_GPA_RANGE,%eax */
	0x74, 0x06,			/* 2a          je vmmcall */
	0x77, 0x09,			/* 2c          ja vmcall */
	0xe7, 0xe8,			/* 2e          out %eax,$PORT_CALL */
	0xeb, 0x25,			/* 30          jmp report */
	0x0f, 0x01, 0xd9,		/* 32 vmmcall: vmmcall */
	0xeb, 0x20,			/* 35          jmp report */
	0x0f, 0x01, 0xc1,		/* 37 vmcall:  vmcall */
	0xeb, 0x1b,			/* 3a          jmp report */
	0x8a, 0x07,			/* 3c read:    mov (%rdi),%al */
	0xe6, 0xf4,			/* 3e          out %al,$PORT_BYTE */
	0xeb, 0xbe,			/* 40          jmp next */
	0x88, 0x07,			/* 42 write:   mov %al,(%rdi) */
	0xeb, 0x02,			/* 44          jmp done */
	0xf3, 0xaa,			/* 46 fill:    rep stosb */
	0x31, 0xc0,			/* 48 done:    xor %eax,%eax */
	0xeb, 0x0b,			/* 4a          jmp report */
	0xf3, 0xae,			/* 4c check:   repe scasb */
	0xb8, 0x00, 0x00, 0x00, 0x00,	/* 4e          mov $0,%eax */
	0x74, 0x02,			/* 53          je report */
	0x89, 0xf8,			/* 55          mov %edi,%eax	after the byte that differs */
	0xe7, 0xf6,			/* 57 report:  out %eax,$0xf6 */
	0xeb, 0xa5,			/* 59          jmp next */
};

struct vcpu {
	int fd;
	struct kvm_run *run;
	struct order *order;
	bool is_stuck;		/* an access has not been made */
};

static unsigned char *guest_memory;

static int guest_file = -1;

static void discard_guest(void)
{
	munmap(guest_memory, GUEST_SIZE);
	close(guest_file);
}

/* A VM with private memory that does not convert in place has no shared guest_memfd. Then a plain mapping serves. */
static void load_guest(int vm)
{
	const uint64_t file_flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
	const char *seen = create_file(vm, &guest_file, GUEST_SIZE, file_flags);
	uint32_t flags = is(seen, "EINVAL") ? 0 : KVM_MEM_GUEST_MEMFD;
	uint64_t start = GUEST_START | GUEST_BIT, *tables;

	if (is(seen, "EINVAL"))
		seen = create_file(create_vm(DEFAULT_VM), &guest_file, GUEST_SIZE, file_flags);
	if (is(seen, "ok"))
		seen = map_file(guest_file, 0, GUEST_SIZE, &guest_memory);
	if (is(seen, "ok"))
		seen = bind_slot(vm, GUEST_SLOT, flags, guest_file, 0, GUEST_SIZE, start, guest_memory);
	if (!is(seen, "ok"))
		skip("the guest of the test cannot be loaded (%s)", seen);
	memcpy(guest_memory, guest_code, sizeof(guest_code));
	tables = (uint64_t *)(guest_memory + TABLES);
	tables[0] = (start + TABLES + PAGE) | 3;
	tables[512] = (start + TABLES + 2 * PAGE) | 3;
	tables[513] = (start + TABLES + 3 * PAGE) | 3;
	for (uint64_t i = 0; i < 512; i++) {
		tables[1024 + i] = i << 21 | (i == GUEST_START >> 21 ? GUEST_BIT : 0) | 0x83;
		tables[1536 + i] = i << 21 | GUEST_BIT | 0x83;
	}
}

static void set_start(struct vcpu *vcpu)
{
	struct kvm_regs regs = {
		.rip = GUEST_START,
		.rbp = GUEST_START + ((unsigned char *)vcpu->order - guest_memory),
		.rflags = 2,
	};

	if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
		fail("KVM_SET_REGS: %s", strerrorname_np(errno));
	vcpu->is_stuck = false;
}

/* In 64-bit mode at the start of the code. */
static void create_vcpu(int vm, unsigned long number, struct vcpu *vcpu)
{
	struct kvm_segment code = { .limit = ~0U, .selector = 8, .type = 0xb, .present = 1, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0U, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(*cpuid->entries));
	struct kvm_sregs sregs;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	cpuid->nent = 256;
	vcpu->fd = ioctl(vm, KVM_CREATE_VCPU, number);
	if (vcpu->fd < 0 || ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0 ||
	    ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
		skip("vcpu%lu cannot be created (%s)", number, strerrorname_np(errno));
	vcpu->run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED)
		fail("mmap: %s", strerrorname_np(errno));
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){ .limit = 0x67, .type = 0xb, .present = 1 };
	sregs.ldt = (struct kvm_segment){ .unusable = 1 };
	sregs.cr0 = 0x80010033;		/* PG, WP, NE, ET, MP, PE */
	sregs.cr3 = (GUEST_START | GUEST_BIT) + TABLES;
	sregs.cr4 = 0x620;		/* OSXMMEXCPT, OSFXSR, PAE */
	sregs.efer = 0x500;		/* LMA, LME */
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
		fail("KVM_SET_SREGS: %s", strerrorname_np(errno));
	vcpu->order = (struct order *)(guest_memory + ORDERS) + number;
	set_start(vcpu);
	free(cpuid);
	close(kvm);
}

static void discard_vcpu(struct vcpu *vcpu)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	munmap(vcpu->run, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	close(vcpu->fd);
	close(kvm);
}

/* Of KVM_EXIT_MEMORY_FAULT, which older versions of struct kvm_run do not have. */
struct memory_fault {
	uint64_t flags, gpa, size;
};

/*
 * Carries out KVM_HC_MAP_GPA_RANGE. Returns 0 or a negative errno, and the page of a failure; UINT64_MAX if there is
 * none.
 */
typedef int64_t call_handler(uint64_t gpa, uint64_t pages, uint64_t attributes, uint64_t *place);

/* For the hypercalls of the guest; NULL if it makes none. */
static call_handler *on_call;

static void answer_by_port(struct vcpu *vcpu, uint64_t *place)
{
	struct kvm_regs regs;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0)
		fail("KVM_GET_REGS: %s", strerrorname_np(errno));
	regs.rax = on_call(regs.rbx, regs.rcx, regs.rdx, place);
	if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
		fail("KVM_SET_REGS: %s", strerrorname_np(errno));
}

/* The guest has carried out its order. A number is the errno of a hypercall, or for a check an address. */
static const char *end_of_order(const struct kvm_run *run, bool is_check, uint64_t place)
{
	uint32_t word = *(const uint32_t *)((const char *)run + run->io.data_offset);

	if (run->io.port == PORT_BYTE)
		return outcome("0x%x", word & 0xff);
	if (word == 0)
		return "ok";
	if (is_check)
		return outcome("differs at 0x%x", (word - 1) & 0x3fffffff);
	if (place == UINT64_MAX)
		return strerrorname_np(-word);
	return outcome("%s at 0x%llx", strerrorname_np(-word), (unsigned long long)place);
}

static const char *end_at_fault(const struct memory_fault *fault, int error)
{
	unsigned long long gpa = fault->gpa;

	if (error != EFAULT)
		return outcome("%s at 0x%llx", strerrorname_np(error), gpa);
	return outcome("fault %s at 0x%llx", fault->flags & KVM_MEMORY_EXIT_FLAG_PRIVATE ? "private" : "shared", gpa);
}

static int enter(const struct vcpu *vcpu)
{
	return ioctl(vcpu->fd, KVM_RUN, 0);
}

/*
 * Enters the guest until it has carried out its order, or cannot. A conversion in progress causes memory faults, too:
 * then the vCPU enters again, up to `retries` times.
 */
static const char *run_vcpu(struct vcpu *vcpu, int retries)
{
	struct kvm_run *run = vcpu->run;
	uint64_t place = UINT64_MAX;
	const char *seen = NULL;
	bool is_mmio = false;

	vcpu->is_stuck = false;
	while (!seen) {
		int done, error;

		run->exit_reason = KVM_EXIT_UNKNOWN;
		done = enter(vcpu);
		error = errno;
		if (run->exit_reason == KVM_EXIT_MEMORY_FAULT) {
			if (error == EFAULT && retries-- > 0) {
				/* A thread that only enters again could keep the conversion from going on. */
				if (retries % 16 == 0)
					nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
				continue;
			}
			seen = end_at_fault((const struct memory_fault *)&run->hw, error);
		} else if (done < 0) {
			if (error != EINTR && error != EAGAIN)
				seen = strerrorname_np(error);
		} else if (run->exit_reason == KVM_EXIT_MMIO) {
			is_mmio = true;
		} else if (run->exit_reason == KVM_EXIT_HYPERCALL && on_call) {
			run->hypercall.ret = on_call(run->hypercall.args[0], run->hypercall.args[1],
						     run->hypercall.args[2], &place);
		} else if (run->exit_reason != KVM_EXIT_IO) {
			fail("the vCPU exits with reason %u", run->exit_reason);
		} else if (run->io.port == PORT_CALL && on_call) {
			answer_by_port(vcpu, &place);
		} else {
			return is_mmio ? "mmio" : end_of_order(run, vcpu->order->operation == ORDER_CHECK, place);
		}
	}
	vcpu->is_stuck = true;
	return is_mmio ? "mmio" : seen;
}

static const char *order_vcpu(struct vcpu *vcpu, struct order order, int retries)
{
	if (vcpu->is_stuck)
		fail("the vCPU has stopped at an access that it has not made");
	*vcpu->order = order;
	return run_vcpu(vcpu, retries);
}

/* A conversion that is in progress can take many entries. */
#define FOLLOW 10000

static const char *guest_read(struct vcpu *vcpu, uint64_t address, int retries)
{
	return order_vcpu(vcpu, (struct order){ .address = address, .count = 1, .operation = ORDER_READ }, retries);
}

static const char *guest_write(struct vcpu *vcpu, uint64_t address, unsigned char value, int retries)
{
	struct order order = { .address = address, .count = 1, .byte = value, .operation = ORDER_WRITE };

	return order_vcpu(vcpu, order, retries);
}

static const char *guest_fill(struct vcpu *vcpu, uint64_t address, uint64_t size, unsigned char value, int retries)
{
	struct order order = { .address = address, .count = size, .byte = value, .operation = ORDER_FILL };

	return order_vcpu(vcpu, order, retries);
}

static const char *guest_check(struct vcpu *vcpu, uint64_t address, uint64_t size, unsigned char value, int retries)
{
	struct order order = { .address = address, .count = size, .byte = value, .operation = ORDER_CHECK };

	return order_vcpu(vcpu, order, retries);
}

/* The vCPU enters again, and repeats the access that it has not made. */
static const char *repeat_access(struct vcpu *vcpu, int retries)
{
	if (!vcpu->is_stuck)
		fail("the vCPU has no access to repeat");
	return run_vcpu(vcpu, retries);
}

static int call_operation;

/* VMMCALL and VMCALL end in the monitor on a CPU with SVM or VMX. Elsewhere the guest calls by a port. */
static void enable_calls(int vm, call_handler *handler)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_HYPERCALL, .args = { 1 << KVM_HC_MAP_GPA_RANGE } };
	uint32_t eax, ebx, ecx, edx;

	on_call = handler;
	call_operation = ORDER_CALL_BY_PORT;
	if (ioctl(vm, KVM_ENABLE_CAP, &cap) < 0)
		return;
	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && ecx & 1 << 2)
		call_operation = ORDER_VMMCALL;
	else if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & 1 << 5)
		call_operation = ORDER_VMCALL;
}

/* KVM_HC_MAP_GPA_RANGE. */
static const char *guest_call(struct vcpu *vcpu, uint64_t gpa, uint64_t pages, uint64_t attributes)
{
	struct order order = { .address = gpa, .count = pages, .operation = call_operation, .attributes = attributes };

	return order_vcpu(vcpu, order, FOLLOW);
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
