// SPDX-License-Identifier: MIT
#include "decode.h"

// Classes of opcode bytes, in addition to the kinds in instruction.h.
enum { PREFIX = CUC_INSTRUCTION_ABSENT + 1, REX, ESCAPE, GROUP_7, GROUP_9, FAR };

const uint8_t cuc_opcodes[256] = {
    [0x0f] = ESCAPE,
    [0x26] = PREFIX, [0x2e] = PREFIX, [0x36] = PREFIX, [0x3e] = PREFIX,
    [0x40 ... 0x4f] = REX,
    [0x64 ... 0x67] = PREFIX,
    [0x6c ... 0x6d] = CUC_INSTRUCTION_INS, [0x6e ... 0x6f] = CUC_INSTRUCTION_OUTS,
    [0x9a] = FAR, [0xca ... 0xcb] = FAR, [0xcf] = FAR, [0xea] = FAR, [0xff] = FAR,  // FF: with /3 and /5
    [0xe4 ... 0xe5] = CUC_INSTRUCTION_IN, [0xe6 ... 0xe7] = CUC_INSTRUCTION_OUT,  // port in the next byte
    [0xec ... 0xed] = CUC_INSTRUCTION_IN, [0xee ... 0xef] = CUC_INSTRUCTION_OUT,  // port in DX
    [0xf0] = PREFIX, [0xf2 ... 0xf3] = PREFIX,
    [0xf4] = CUC_INSTRUCTION_HALT,
};

// Second byte after 0F.
static const uint8_t two_byte_opcodes[256] = {
    [0x01] = GROUP_7,
    [0x05] = CUC_INSTRUCTION_ABSENT,  // SYSCALL
    [0x07] = CUC_INSTRUCTION_ABSENT,  // SYSRET
    [0x20] = CUC_INSTRUCTION_READ_CONTROL, [0x21] = CUC_INSTRUCTION_READ_DEBUG,
    [0x22] = CUC_INSTRUCTION_WRITE_CONTROL, [0x23] = CUC_INSTRUCTION_WRITE_DEBUG,
    [0x30] = CUC_INSTRUCTION_WRITE_MSR, [0x31] = CUC_INSTRUCTION_READ_TIME, [0x32] = CUC_INSTRUCTION_READ_MSR,
    [0x33] = CUC_INSTRUCTION_ABSENT,           // RDPMC
    [0x34 ... 0x35] = CUC_INSTRUCTION_ABSENT,  // SYSENTER, SYSEXIT
    [0xa2] = CUC_INSTRUCTION_CPUID,
    [0xc7] = GROUP_9,
};

struct prefixes {
    uint32_t length;
    uint8_t rex;      // effective only directly before the opcode; otherwise 0
    uint8_t segment;  // the last segment prefix that has an effect; otherwise 0
    uint8_t repeat;   // the last of REPNE (F2) and REP (F3); otherwise 0
    bool has_lock, has_other_operands, has_other_addresses;  // LOCK, 66, 67
};

// 0F 01, by its ModRM byte. With F2, 0F 01 FE is RMPUPDATE, and with F3, 0F 01 FF is PSMASH: both are for hypervisors.
static enum cuc_instruction_kind group_7(uint8_t modrm, const struct prefixes *prefixes) {
    switch (modrm) {
    case 0xc1: return CUC_INSTRUCTION_HYPERCALL;
    case 0xcc: return prefixes->has_other_operands ? CUC_INSTRUCTION_CALL_MODULE : CUC_INSTRUCTION_NONE;
    case 0xd9: return prefixes->repeat ? CUC_INSTRUCTION_EXIT_TO_HYPERVISOR : CUC_INSTRUCTION_HYPERCALL;
    case 0xfe:
        return prefixes->repeat == 0xf3   ? CUC_INSTRUCTION_ADJUST_PAGE
               : prefixes->repeat == 0xf2 ? CUC_INSTRUCTION_ABSENT
                                          : CUC_INSTRUCTION_NONE;
    case 0xff:
        return prefixes->repeat == 0xf2   ? CUC_INSTRUCTION_VALIDATE_PAGE
               : prefixes->repeat == 0xf3 ? CUC_INSTRUCTION_ABSENT
                                          : CUC_INSTRUCTION_NONE;
    case 0xc8: case 0xc9: return CUC_INSTRUCTION_ABSENT;  // MONITOR, MWAIT
    case 0xf8: return CUC_INSTRUCTION_SWAP_GS;
    case 0xf9: return CUC_INSTRUCTION_READ_TIME_AND_PROCESSOR;
    }
    uint8_t extension = modrm >> 3 & 7;
    if (extension == 6) return modrm < 0xc0 ? CUC_INSTRUCTION_ABSENT : CUC_INSTRUCTION_WRITE_MACHINE_STATUS;
    return extension == 7 && modrm < 0xc0 ? CUC_INSTRUCTION_INVALIDATE_PAGE : CUC_INSTRUCTION_NONE;
}

// 0F C7: RDRAND, RDSEED and RDPID have a register operand.
static enum cuc_instruction_kind group_9(uint8_t modrm) {
    return modrm >= 0xf0 ? CUC_INSTRUCTION_ABSENT : CUC_INSTRUCTION_NONE;
}

static struct prefixes read_prefixes(const uint8_t *bytes, uint32_t size, uint32_t bits) {
    struct prefixes prefixes = {0};
    for (; prefixes.length < size; prefixes.length++) {
        uint8_t byte = bytes[prefixes.length], kind = cuc_opcodes[byte];
        if (kind != PREFIX && (kind != REX || bits != 64)) break;
        prefixes.rex = kind == REX ? byte : 0;
        switch (byte) {
        case 0x26: case 0x2e: case 0x36: case 0x3e: prefixes.segment = bits == 64 ? prefixes.segment : byte; break;
        case 0x64: case 0x65: prefixes.segment = byte; break;
        case 0x66: prefixes.has_other_operands = true; break;
        case 0x67: prefixes.has_other_addresses = true; break;
        case 0xf0: prefixes.has_lock = true; break;
        case 0xf2: case 0xf3: prefixes.repeat = byte; break;
        }
    }
    return prefixes;
}

// Length in bytes of a ModRM byte with a memory operand, with SIB and displacement; more than `size` if not all of
// it is in `modrm`.
static uint32_t memory_operand_length(const uint8_t *modrm, uint32_t size, uint8_t address_size) {
    static const uint8_t displacements[] = {0, 1, 4, 0}, short_displacements[] = {0, 1, 2, 0};
    if (size == 0) return 1;
    uint8_t mode = modrm[0] >> 6, base = modrm[0] & 7;
    if (address_size == 2) return 1 + (base == 6 && mode == 0 ? 2 : short_displacements[mode]);
    bool has_sib = base == 4;
    if (has_sib && size == 1) return 2;
    if (has_sib) base = modrm[1] & 7;
    return 1 + has_sib + (base == 5 && mode == 0 ? 4 : displacements[mode]);
}

// Decodes the bytes after the opcode and returns their length; more than `size` if not all of them are in
// `operands`.
static uint32_t read_operands(
    struct cuc_instruction *instruction, const uint8_t *operands, uint32_t size, bool has_port, uint8_t rex) {
    uint8_t first = size > 0 ? operands[0] : 0;
    switch (instruction->kind) {
    case CUC_INSTRUCTION_IN:
    case CUC_INSTRUCTION_OUT:
        instruction->has_port = has_port;
        instruction->port = has_port ? first : 0;
        return has_port;
    case CUC_INSTRUCTION_READ_CONTROL:
    case CUC_INSTRUCTION_WRITE_CONTROL:
    case CUC_INSTRUCTION_READ_DEBUG:
    case CUC_INSTRUCTION_WRITE_DEBUG:
        instruction->number = (first >> 3 & 7) | (rex & 4) << 1;
        instruction->general = (first & 7) | (rex & 1) << 3;
        return 1;
    case CUC_INSTRUCTION_WRITE_MACHINE_STATUS:
        instruction->general = (first & 7) | (rex & 1) << 3;
        return 1;
    case CUC_INSTRUCTION_INVALIDATE_PAGE: return memory_operand_length(operands, size, instruction->address_size);
    case CUC_INSTRUCTION_HYPERCALL:
    case CUC_INSTRUCTION_SWAP_GS:
    case CUC_INSTRUCTION_VALIDATE_PAGE:
    case CUC_INSTRUCTION_ADJUST_PAGE:
    case CUC_INSTRUCTION_EXIT_TO_HYPERVISOR:
    case CUC_INSTRUCTION_CALL_MODULE:
    case CUC_INSTRUCTION_READ_TIME_AND_PROCESSOR: return 1;  // the ModRM byte that distinguishes them
    default: return 0;
    }
}

// Bytes of an address. With the prefix 67 it is half of the normal size, or twice as much in 16-bit code.
static uint8_t address_size(uint32_t bits, bool is_other) {
    if (!is_other) return bits / 8;
    return bits == 16 ? 4 : bits / 16;
}

struct cuc_instruction cuc_decode(const uint8_t *bytes, uint32_t size, uint32_t bits) {
    struct cuc_instruction instruction = {.kind = CUC_INSTRUCTION_NONE};
    struct prefixes prefixes = read_prefixes(bytes, size, bits);
    const uint8_t *opcode = bytes + prefixes.length;
    uint32_t rest = size - prefixes.length;
    if (rest == 0) return instruction;
    uint8_t kind = cuc_opcodes[opcode[0]];
    if (kind == FAR || kind == REX) kind = CUC_INSTRUCTION_NONE;
    uint32_t length = kind == ESCAPE ? 2 : 1;
    if (kind == ESCAPE) kind = rest > 1 ? two_byte_opcodes[opcode[1]] : CUC_INSTRUCTION_NONE;
    if (kind == GROUP_7) kind = rest > 2 ? group_7(opcode[2], &prefixes) : CUC_INSTRUCTION_NONE;
    if (kind == GROUP_9) kind = rest > 2 ? group_9(opcode[2]) : CUC_INSTRUCTION_NONE;
    if (kind == CUC_INSTRUCTION_NONE) return instruction;
    // None of these instructions allows LOCK.
    instruction.kind = prefixes.has_lock ? CUC_INSTRUCTION_ABSENT : kind;
    bool has_words = (bits == 16) != prefixes.has_other_operands;
    instruction.size = (opcode[0] & 1) == 0 ? 1 : has_words ? 2 : 4;
    instruction.segment = prefixes.segment;
    instruction.is_repeated = prefixes.repeat != 0;
    instruction.address_size = address_size(bits, prefixes.has_other_addresses);
    bool has_port = opcode[0] >= 0xe4 && opcode[0] <= 0xe7;
    length += read_operands(&instruction, opcode + length, rest - length, has_port, prefixes.rex);
    instruction.length = length <= rest ? prefixes.length + length : 0;
    return instruction;
}

// Instructions that allow LOCK if their destination is in memory. `extension` is the reg field of ModRM.
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
    // Without a ModRM byte there is no destination in memory, or the instruction is cut off after the escape byte.
    if (size <= modrm_at) return size == 1 && opcode[0] == 0x0f;
    uint8_t modrm = opcode[modrm_at];
    return modrm < 0xc0 && is_lockable(opcode, modrm >> 3 & 7);
}

bool cuc_is_far_transfer(const uint8_t *bytes, uint32_t size, uint32_t bits) {
    struct prefixes prefixes = read_prefixes(bytes, size, bits);
    const uint8_t *opcode = bytes + prefixes.length;
    uint32_t rest = size - prefixes.length;
    if (rest == 0 || cuc_opcodes[opcode[0]] != FAR) return false;
    return opcode[0] != 0xff || (rest > 1 && ((opcode[1] >> 3 & 7) == 3 || (opcode[1] >> 3 & 7) == 5));
}

bool cuc_is_undefined(const uint8_t *bytes, uint32_t size, uint32_t bits) {
    struct prefixes prefixes = read_prefixes(bytes, size, bits);
    const uint8_t *opcode = bytes + prefixes.length;
    uint32_t rest = size - prefixes.length;
    if (rest == 0) return false;
    if (prefixes.has_lock && !takes_lock(opcode, rest)) return true;
    return opcode[0] == 0xff && rest > 1 && opcode[1] >= 0xc0
        && ((opcode[1] >> 3 & 7) == 3 || (opcode[1] >> 3 & 7) == 5);
}
