/* SPDX-License-Identifier: MIT */
/* Replacements for parts of the runtime that use the helpers of the kernel's tools/testing/selftests/kvm. */
#include "kvm_util.h" /* kvm_vm, kvm_check_cap, BIT */
#include "processor.h" /* PAGE_SIZE, host_cpu_is_amd */
#include "test_util.h" /* TEST_ASSERT, TEST_REQUIRE, __TEST_REQUIRE, TEST_FAIL */

#define PAGE ((u64)PAGE_SIZE)

#define COUNT(array) ARRAY_SIZE(array)

#define pass() exit(KSFT_PASS)

#define skip(fmt, ...) __TEST_REQUIRE(false, fmt, ##__VA_ARGS__)

#define fail(fmt, ...) TEST_FAIL(fmt, ##__VA_ARGS__)

#define expect(step, expected)							\
do {										\
	const char *__seen = step;						\
										\
	__TEST_REQUIRE(!is(__seen, "ENOTTY") || is(__seen, expected),		\
		       "%s is not supported", #step);				\
	TEST_ASSERT(is(__seen, expected), "%s: seen %s, expected %s",		\
		    #step, __seen, expected);					\
} while (0)

static struct kvm_vm *create_vm(unsigned long type)
{
	TEST_REQUIRE(type == KVM_X86_DEFAULT_VM ||
		     (kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(type)));
	return vm_create_barebones_type(type);
}

static void discard_vm(struct kvm_vm *vm)
{
	kvm_vm_free(vm);
}

static const char *create_file(struct kvm_vm *vm, int *file, uint64_t size, uint64_t flags)
{
	*file = __vm_create_guest_memfd(vm, size, flags);
	return answer(*file);
}

/* A guest_memfd with a view of all of it. */
static void create_memory(struct kvm_vm *vm, int *file, unsigned char **view, uint64_t size, uint64_t flags)
{
	*file = __vm_create_guest_memfd(vm, size, GUEST_MEMFD_FLAG_MMAP | flags);
	__TEST_REQUIRE(*file >= 0, "No guest_memfd that the host can map: %s", strerrorname_np(errno));
	*view = kvm_mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, *file);
}

static const char *bind_slot(struct kvm_vm *vm, uint32_t slot, uint32_t flags, int file, uint64_t offset,
			     uint64_t size, uint64_t gpa, void *address)
{
	return answer(__vm_set_user_memory_region2(vm, slot, flags, gpa, size, address, file, offset));
}

static void enable_calls(struct kvm_vm *vm, call_handler *handler)
{
	vm_enable_cap(vm, KVM_CAP_EXIT_HYPERCALL, BIT(KVM_HC_MAP_GPA_RANGE));
	set_call(host_cpu_is_amd ? 0xd9 /* VMMCALL */ : 0xc1 /* VMCALL */);
	on_call = handler;
}

static uint64_t shared_bit(void)
{
	unsigned int bits = kvm_cpu_property(X86_PROPERTY_MAX_PHY_ADDR);

	return 1ULL << (bits > 46 ? 46 : bits - 1);
}
