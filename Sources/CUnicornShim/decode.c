// SPDX-License-Identifier: MIT
#include "decode.h"

// The prefixes of an instruction. A REX prefix counts only directly before the opcode.
struct prefixes {
    uint32_t length;
    bool has_lock;
};

static struct prefixes read_prefixes(const uint8_t *bytes, uint32_t size) {
    struct prefixes prefixes = {0, false};
    for (; prefixes.length < size; prefixes.length++) {
        uint8_t byte = bytes[prefixes.length];
        bool is_legacy = byte == 0xf0 || byte == 0xf2 || byte == 0xf3 || (byte >= 0x64 && byte <= 0x67)
            || (byte & 0xe7) == 0x26;
        if (!is_legacy && (byte & 0xf0) != 0x40) break;
        prefixes.has_lock |= byte == 0xf0;
    }
    return prefixes;
}

bool cuc_is_privileged(const uint8_t *bytes, uint32_t size) {
    uint32_t i = read_prefixes(bytes, size).length;
    if (i >= size) return false;
    switch (bytes[i]) {
    case 0x6c: case 0x6d: case 0x6e: case 0x6f:                                // INS, OUTS
    case 0xe4: case 0xe5: case 0xe6: case 0xe7:                                // IN, OUT port
    case 0xec: case 0xed: case 0xee: case 0xef:                                // IN, OUT DX
    case 0xf4:                                                                 // HLT
        return true;
    case 0x0f: break;
    default: return false;
    }
    if (i + 1 >= size) return false;
    uint8_t modrm = i + 2 < size ? bytes[i + 2] : 0;
    switch (bytes[i + 1]) {
    case 0x05: case 0x07: case 0x34: case 0x35:                                // SYSCALL, SYSRET, SYSENTER, SYSEXIT
    case 0x20: case 0x21: case 0x22: case 0x23:                                // MOV from, to CR and DR
    case 0x30: case 0x31: case 0x32: case 0x33:                                // WRMSR, RDTSC, RDMSR, RDPMC
    case 0xa2:                                                                 // CPUID
        return true;
    case 0x01:  // VMCALL, VMMCALL, MONITOR, MWAIT, SWAPGS, RDTSCP, LMSW, INVLPG
        return modrm == 0xc1 || modrm == 0xd9 || modrm == 0xc8 || modrm == 0xc9 || modrm == 0xf8 || modrm == 0xf9
            || (modrm >> 3 & 7) == 6 || ((modrm >> 3 & 7) == 7 && modrm < 0xc0);
    case 0xc7:  // RDRAND, RDSEED, RDPID
        return modrm >= 0xf0;
    default: return false;
    }
}

// The instructions that LOCK may precede, where their destination is in memory. `extension` is the reg field of ModRM.
static bool is_lockable(const uint8_t *opcode, uint8_t extension) {
    if (opcode[0] == 0x0f) {
        switch (opcode[1]) {
        case 0xab: case 0xb3: case 0xbb: case 0xb0: case 0xb1: case 0xc0: case 0xc1: return true;
        case 0xba: return extension >= 5;  // BTS, BTR, BTC
        case 0xc7: return extension == 1;  // CMPXCHG8B
        default: return false;
        }
    }
    switch (opcode[0]) {
    case 0x80: case 0x81: case 0x83: return extension != 7;                    // all but CMP
    case 0x86: case 0x87: return true;                                         // XCHG
    case 0xf6: case 0xf7: return extension == 2 || extension == 3;             // NOT, NEG
    case 0xfe: case 0xff: return extension <= 1;                               // INC, DEC
    default: return opcode[0] < 0x38 && (opcode[0] & 7) <= 1;                  // ADD to XOR
    }
}

static bool takes_lock(const uint8_t *opcode, uint32_t size) {
    uint32_t modrm_at = opcode[0] == 0x0f ? 2 : 1;
    // Without a ModRM byte it has no destination in memory, or is cut short after the escape.
    if (size <= modrm_at) return size == 1 && opcode[0] == 0x0f;
    uint8_t modrm = opcode[modrm_at];
    return modrm < 0xc0 && is_lockable(opcode, modrm >> 3 & 7);
}

bool cuc_is_undefined(const uint8_t *bytes, uint32_t size) {
    struct prefixes prefixes = read_prefixes(bytes, size);
    const uint8_t *opcode = bytes + prefixes.length;
    uint32_t rest = size - prefixes.length;
    if (rest == 0) return false;
    if (prefixes.has_lock && !takes_lock(opcode, rest)) return true;
    return opcode[0] == 0xff && rest > 1 && opcode[1] >= 0xc0
        && ((opcode[1] >> 3 & 7) == 3 || (opcode[1] >> 3 & 7) == 5);
}

const bool cuc_wants_a_look[256] = {
    [0x0f] = true, [0x26] = true, [0x2e] = true, [0x36] = true, [0x3e] = true, [0x40 ... 0x4f] = true,
    [0x64 ... 0x67] = true, [0x6c ... 0x6f] = true, [0xe4 ... 0xe7] = true, [0xec ... 0xf4] = true,
};
