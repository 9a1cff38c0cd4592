#include "privileged.h"

bool cuc_is_privileged(const uint8_t *bytes, uint32_t size) {
    uint32_t i = 0;
    for (; i < size; i++) {
        uint8_t byte = bytes[i];
        bool is_prefix = byte == 0xf0 || byte == 0xf2 || byte == 0xf3 || (byte >= 0x64 && byte <= 0x67)
            || (byte & 0xe7) == 0x26;
        if (!is_prefix) break;
    }
    if (i < size && (bytes[i] & 0xf0) == 0x40) i++;
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
    case 0x20: case 0x22:                                                      // MOV from, to CR
    case 0x30: case 0x31: case 0x32: case 0x33:                                // WRMSR, RDTSC, RDMSR, RDPMC
    case 0xa2:                                                                 // CPUID
        return true;
    case 0x01:  // VMCALL, VMMCALL, MONITOR, MWAIT, RDTSCP, LMSW, INVLPG
        return modrm == 0xc1 || modrm == 0xd9 || modrm == 0xc8 || modrm == 0xc9 || modrm == 0xf9
            || (modrm >> 3 & 7) == 6 || ((modrm >> 3 & 7) == 7 && modrm < 0xc0);
    case 0xc7:  // RDRAND, RDSEED, RDPID
        return modrm >= 0xf0;
    default: return false;
    }
}

const bool cuc_wants_a_look[256] = {
    [0x0f] = true, [0x26] = true, [0x2e] = true, [0x36] = true, [0x3e] = true, [0x64 ... 0x67] = true,
    [0x6c ... 0x6f] = true, [0xe4 ... 0xe7] = true, [0xec ... 0xf4] = true,
};
