/* SPDX-License-Identifier: MIT */
/*
 * A VM whose guest reaches each page through a private alias and, with one more address bit, through a shared alias. The
 * monitor makes them from memslots: the alias that does not fit the page's state is bound to a guest_memfd that is closed,
 * so that the kernel answers an access there with a memory fault.
 */
static uint64_t shared_bit(void)
{
	uint32_t eax = 0, ebx, ecx, edx;
	int bits;

	__get_cpuid(0x80000008, &eax, &ebx, &ecx, &edx);
	bits = eax & 0xff;
	return 1ULL << (bits > 46 ? 46 : bits - 1);
}

#define MOST_PAGES 512

/* Guest memory. Its state is that of the last successful conversion. */
struct aliased_memory {
	int vm;
	int file;
	unsigned char *view;
	uint64_t gpa, pages;
	bool is_private[MOST_PAGES];
};

static struct aliased_memory aliased[8];

static size_t aliased_count;

/* Read by threads in the guest, written while memslots change. */
static pthread_rwlock_t guest_lock = PTHREAD_RWLOCK_INITIALIZER;

/* Of the two for a page. Lower numbers are for memslots of the test and of the guest itself. */
static uint32_t first_slot(const struct aliased_memory *memory, uint64_t page)
{
	return 1000 + ((memory - aliased) * MOST_PAGES + page) * 2;
}

static void set_alias(const struct aliased_memory *memory, uint64_t page, uint64_t bit, bool is_open)
{
	uint32_t slot = first_slot(memory, page) + (bit != 0);
	uint64_t gpa = (memory->gpa + page * PAGE) | bit;
	const char *seen;
	int shut = -1;

	if (is_open) {
		seen = bind_slot(memory->vm, slot, KVM_MEM_GUEST_MEMFD, memory->file, page * PAGE, PAGE, gpa,
				 memory->view + page * PAGE);
	} else {
		seen = create_file(memory->vm, &shut, PAGE, GUEST_MEMFD_FLAG_MMAP);
		if (is(seen, "ok"))
			seen = bind_slot(memory->vm, slot, KVM_MEM_GUEST_MEMFD, shut, 0, PAGE, gpa, NULL);
		close(shut);
	}
	if (!is(seen, "ok"))
		fail("memslot %u for an alias: %s", slot, seen);
}

static void set_state(struct aliased_memory *memory, uint64_t page, bool is_private)
{
	memory->is_private[page] = is_private;
	set_alias(memory, page, 0, is_private);
	set_alias(memory, page, shared_bit(), !is_private);
}

static void alias_memory(int vm, int file, unsigned char *view, uint64_t pages, uint64_t gpa, bool is_private)
{
	struct aliased_memory *memory = &aliased[aliased_count++];

	*memory = (struct aliased_memory){ .vm = vm, .file = file, .view = view, .gpa = gpa, .pages = pages };
	for (uint64_t page = 0; page < pages; page++)
		set_state(memory, page, is_private);
}

/* The memslots follow the pages that have changed. */
static void follow_conversion(struct aliased_memory *memory, uint64_t first, uint64_t end, bool is_private)
{
	for (uint64_t page = first; page < end && page < memory->pages; page++) {
		if (memory->is_private[page] == is_private)
			continue;
		delete_slot(memory->vm, first_slot(memory, page));
		delete_slot(memory->vm, first_slot(memory, page) + 1);
		set_state(memory, page, is_private);
	}
}

static const char *convert(int file, uint64_t offset, uint64_t size, uint64_t attributes)
{
	struct kvm_memory_attributes2 request = { .offset = offset, .size = size, .attributes = attributes };
	const char *seen;

	pthread_rwlock_wrlock(&guest_lock);
	seen = convert_with(file, &request);
	for (size_t i = 0; i < aliased_count && is(seen, "ok"); i++)
		if (aliased[i].file == file)
			follow_conversion(&aliased[i], offset / PAGE, (offset + size) / PAGE, attributes == PRIVATE);
	pthread_rwlock_unlock(&guest_lock);
	return seen;
}

#define TABLES (1 * PAGE)	/* behind the code: three levels; two GiB, each the first of physical memory */

#define GUEST_SIZE (5 * PAGE)

/* In the shared alias, as the host has it. */
static void load_guest(int vm)
{
	uint64_t start = GUEST_START | shared_bit(), *tables;

	guest_memory = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!is(bind_slot(vm, GUEST_SLOT, 0, 0, 0, GUEST_SIZE, start, guest_memory), "ok"))
		skip("the guest of the test cannot be loaded (%s)", strerrorname_np(errno));
	tables = (uint64_t *)(guest_memory + TABLES);
	tables[0] = (start + TABLES + PAGE) | 3;
	tables[512] = (start + TABLES + 2 * PAGE) | 3;
	tables[513] = (start + TABLES + 3 * PAGE) | 3;
	for (uint64_t i = 0; i < 512; i++) {
		tables[1024 + i] = i << 21 | (i == GUEST_START >> 21 ? shared_bit() : 0) | 0x83;
		tables[1536 + i] = i << 21 | shared_bit() | 0x83;
	}
}

/* In 64-bit mode. */
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
	vcpu->run = mmap(NULL, sizeof(*vcpu->run), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){ .limit = 0x67, .type = 0xb, .present = 1 };
	sregs.ldt = (struct kvm_segment){ .unusable = 1 };
	sregs.cr0 = 0x80010033;		/* PG, WP, NE, ET, MP, PE */
	sregs.cr3 = (GUEST_START | shared_bit()) + TABLES;
	sregs.cr4 = 0x620;		/* OSXMMEXCPT, OSFXSR, PAE */
	sregs.efer = 0x500;		/* LMA, LME */
	if (vcpu->run == MAP_FAILED || ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
		fail("vcpu%lu: %s", number, strerrorname_np(errno));
	vcpu->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	vcpu->code = guest_memory + 16 * number;
	free(cpuid);
	close(kvm);
}

/* The distance of an address of the guest to the same byte in the shared alias. */
#define SHARED_ALIAS (1ULL << 30)

static int enter(const struct vcpu *vcpu)
{
	int done, error;

	pthread_rwlock_rdlock(&guest_lock);
	done = ioctl(vcpu->fd, KVM_RUN, 0);
	error = errno;
	pthread_rwlock_unlock(&guest_lock);
	errno = error;
	return done;
}

/* The alias tells which state the access needs. */
static const char *end_at_fault(uint64_t flags, uint64_t gpa, int error)
{
	uint64_t place = gpa & ~shared_bit();

	(void)flags;
	if (error != EFAULT)
		return outcome("%s at 0x%lx", strerrorname_np(error), place);
	return outcome("fault %s at 0x%lx", place == gpa ? "private" : "shared", place);
}

static const char *convert_gpa(uint64_t gpa, uint64_t to, const struct policy *policy)
{
	for (size_t i = 0; i < aliased_count; i++) {
		struct aliased_memory *memory = &aliased[i];
		struct part part = { memory->file, memory->view, gpa - memory->gpa, PAGE, gpa };

		if (gpa >= memory->gpa && part.offset < memory->pages * PAGE)
			return convert_parts(&part, 1, to, policy);
	}
	return "ok";
}

/*
 * What a monitor does with a memory fault of an access: it converts the page to the state that the access needs, and
 * enters again. If it cannot convert the page, the vCPU stays where it is.
 */
static const char *follow_faults(struct vcpu *vcpu, const char *seen, const struct policy *policy)
{
	for (int i = 0; i < FOLLOW && is(seen, "fault *"); i++) {
		uint64_t to = is(seen, "fault private*") ? PRIVATE : SHARED;
		const char *converted = convert_gpa(place_of(seen) & ~(PAGE - 1), to, policy);

		if (!is(converted, "ok"))
			return converted;
		seen = repeat_access(vcpu);
	}
	return seen;
}
