// SPDX-License-Identifier: MIT
// The interface for guests of MiniVMM: the boot contract, the ports and the calls, for assembler and C. guest/README.md
// describes it.
#ifndef MINIVMM_GUEST_H
#define MINIVMM_GUEST_H

// ---- entry -----------------------------------------------------------------------------------------------
// 64-bit mode, ring 0, paging on, everything identity mapped, interrupts off, no IDT (an exception is a triple
// fault). RDI = address of the boot information page, RSI = index of this vCPU, RSP = the top of a 16 KiB stack of
// its own. All vCPUs start at the entry point at the same time. Direction flag clear, other registers 0.

// ---- boot information page: offsets from RDI ---------------------------------------------------------------
#define BOOT_MAGIC 0x00        // u64 "MINIVMM1"
#define BOOT_VERSION 0x08      // u32 1
#define BOOT_VCPUS 0x0c        // u32 number of vCPUs
#define BOOT_RAM_SIZE 0x10     // u64 bytes of RAM, from guest-physical 0
#define BOOT_SHARED_BIT 0x18   // u64 the address mask that makes an access shared; 0 = one alias only
#define BOOT_FLAGS 0x20        // u64 BOOT_FLAG_*
#define BOOT_IMAGE_START 0x28  // u64 first byte of the image
#define BOOT_IMAGE_END 0x30    // u64 one past its last page
#define BOOT_FREE_START 0x38   // u64 first byte of free RAM, 2 MiB aligned if RAM is large enough
#define BOOT_FREE_END 0x40     // u64 one past the last byte of free RAM
#define BOOT_SIZE 0x48         // the rest of the page is 0

#define BOOT_MAGIC_VALUE 0x314d4d56494e494d  // "MINIVMM1", little endian
#define BOOT_FLAG_VMMCALL 1    // the instruction (VMMCALL, or VMCALL on Intel) reaches the monitor
#define BOOT_FLAG_IMPLICIT 2   // two aliases: an access through the wrong one converts the page
#define BOOT_FLAG_VMCALL 4     // that instruction is VMCALL here
#define BOOT_FLAG_SNP 8        // an SNP guest: the C-bit is 51
#define BOOT_FLAG_TDX 16       // a TDX guest: the shared bit of an address is 47

// ---- ports -------------------------------------------------------------------------------------------------
#define PORT_COM1 0x3f8      // the transmitter is always ready
#define PORT_DEBUG 0xe9      // one byte to the console
#define PORT_EXIT 0xf4       // one byte: the exit status, 0 to 123
#define PORT_HYPERCALL 0xe8  // OUT EAX: a call with the registers of a hypercall

// ---- calls: RAX = number; RBX, RCX, RDX, RSI = arguments; RAX = result, negative = -errno ---------------------
// KVM's hypercall, by instruction (if BOOT_FLAG_VMMCALL is set) or by port:
#define HC_MAP_GPA_RANGE 12  // RBX = address without the shared bit, RCX = pages of 4 KiB, RDX = attributes
                             // by port, if the call fails after the request was found valid: RCX = first page not converted
#define MAP_PRIVATE 0x10     // RDX: to private ("encrypted"); 0 = to shared ("decrypted")
// The content policy, an addition of MiniVMM in bits that KVM passes on to the monitor:
#define MAP_CONTENTS_DEFAULT 0x000      // the policy of the monitor (--contents)
#define MAP_CONTENTS_PRESERVE 0x100     // the same bytes afterwards, or an error and nothing changed
#define MAP_CONTENTS_ZERO 0x200         // zeros afterwards, or an error and nothing changed
#define MAP_CONTENTS_UNSPECIFIED 0x300  // any bytes afterwards
// MiniVMM's services, by port only. A page address is without the shared bit.
#define HC_HOLD 0x4d560001     // the host takes references on RCX pages at RBX; RDX = 0: it releases them on
                               // request, 1: it keeps them until HC_RELEASE
#define HC_RELEASE 0x4d560002  // the host releases all pages that it holds
#define HC_PEEK 0x4d560003     // the host reads the u64 at RBX through its mapping into RCX; -EFAULT if it cannot
#define HC_POKE 0x4d560004     // the host writes RCX there
#define HC_STATE 0x4d560005    // 0 = the page at RBX is shared, 1 = private
#define HC_YIELD 0x4d560006    // no operation; lets another vCPU run
#define HC_HOST_ACTS 0x4d560007  // a hostile host (run --host) acts on the pages at RBX and RCX; -ENOSYS if the host is honest

// ---- the same calls by a shared page, for guests whose registers the monitor cannot see (SNP and TDX) ---------
#define PORT_CALL_PAGE 0xea  // OUT EAX: the number of the page (its address / 4096)
#define CALL_NUMBER 0x00     // u64, as RAX
#define CALL_RBX 0x08        // u64
#define CALL_RCX 0x10        // u64
#define CALL_RDX 0x18        // u64
#define CALL_RESULT 0x20     // u64, the answer: 0 or a negative errno
#define CALL_WORD 0x28       // u64, the answer: RCX, or 0

// errno values a guest may see, negated
#define EPERM 1
#define EAGAIN 11
#define EFAULT 14
#define EINVAL 22
#define ENOSYS 38
#define EOPNOTSUPP 95
#define KVM_ENOSYS 1000

#endif
