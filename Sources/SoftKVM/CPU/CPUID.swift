// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM

extension SoftVCPU {
    /// The result of the CPUID instruction. The leaves by which a guest finds out that it is an SNP or TDX guest come from the VM.
    func cpuid(
        _ function: UInt64, _ index: UInt64
    ) -> (eax: UInt32, ebx: UInt32, ecx: UInt32, edx: UInt32) {
        let function = UInt32(truncatingIfNeeded: function)
        switch (function, vm.type) {
        // SEV, SEV-ES, SNP; the C-bit, one VMPL, and no need to evict caches.
        case (0x8000_001f, .snp): return (0b11010, 51 | 1 << 12 | 1 << 31, 0, 0)
        // "IntelTDX    "
        case (0x21, .tdx): return (0, 0x6574_6e49, 0x2020_2020, 0x5844_546c)
        default: return table.answer(function: function, index: UInt32(truncatingIfNeeded: index))
        }
    }
}

extension CPUIDTable {
    /// The CPUID table of the CPU of ``SoftKVM``: the same on every host.
    static var soft: CPUIDTable {
        CPUIDTable(entries: [
            leaf(0, 1, vendor: "AuthenticAMD"),
            // Family 15; FPU, PSE, TSC, MSR, PAE, CX8, PGE, CMOV, PAT, MMX, FXSR, SSE, SSE2; SSE3, CX16, POPCNT,
            // hypervisor.
            leaf(1, 0x0000_0f00, 0, 1 | 1 << 13 | 1 << 23 | 1 << 31, 0x0781_a179),
            leaf(0x4000_0000, 0x4000_0001, vendor: "KVMKVMKVM\0\0\0"),
            leaf(0x4000_0001, 0, 0, 0, 0),
            leaf(0x8000_0000, 0x8000_0008, vendor: "AuthenticAMD"),
            // NX, pages of 1 GiB, RDTSCP, long mode; LAHF in 64-bit mode.
            leaf(0x8000_0001, 0x0000_0f00, 0, 1, 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29),
            leaf(0x8000_0008, UInt32(GuestPhysical.bits) | 48 << 8, 0, 0, 0),
        ])
    }

    private static func leaf(
        _ function: UInt32, _ eax: UInt32, _ ebx: UInt32, _ ecx: UInt32, _ edx: UInt32
    ) -> ckvm_cpuid_entry2 {
        var entry = ckvm_cpuid_entry2()
        entry.function = function
        entry.eax = eax
        entry.ebx = ebx
        entry.ecx = ecx
        entry.edx = edx
        return entry
    }

    /// A leaf with a vendor string of twelve letters in EBX, EDX, ECX, or for the KVM signature in EBX, ECX, EDX.
    private static func leaf(_ function: UInt32, _ eax: UInt32, vendor: String) -> ckvm_cpuid_entry2 {
        let letters = Array(vendor.utf8)
        func word(_ index: Int) -> UInt32 {
            letters.dropFirst(index * 4).prefix(4).reversed().reduce(0) { $0 << 8 | UInt32($1) }
        }
        return function == 0x4000_0000
            ? leaf(function, eax, word(0), word(1), word(2)) : leaf(function, eax, word(0), word(2), word(1))
    }

    /// The result of the CPUID instruction: zeros for a leaf that the table does not have.
    func answer(function: UInt32, index: UInt32) -> (eax: UInt32, ebx: UInt32, ecx: UInt32, edx: UInt32) {
        let significantIndex: UInt32 = 1
        let found = entries.first {
            $0.function == function && ($0.flags & significantIndex == 0 || $0.index == index)
        }
        return found.map { ($0.eax, $0.ebx, $0.ecx, $0.edx) } ?? (0, 0, 0, 0)
    }
}
