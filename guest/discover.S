// SPDX-License-Identifier: MIT
// discover: how a guest finds out where it runs, and what its instructions do in the wrong place.
//
// SNP: CPUID raises #VC, so the first source is the GHCB MSR and SEV_STATUS. TDX: CPUID leaf 0x21 has the signature, and TDG.VP.INFO the
// width of addresses.
// Ends with exit status 0.
#define GUEST "discover"
#include "support.h"
#include "confidential.h"

    begin_confidential
    on_tdx  tdx
    mov     $0xc0010131, %ecx
    rdmsr
    say     "SNP guest: SEV_STATUS "
    mov     %eax, %r8d
    say_hex %r8
    resume_at no_cpuid
    xor     %eax, %eax
    cpuid
    leave_with 1
no_cpuid:
    say     ", CPUID raises #VC "
    say_hex %rax
    say     "\n"
    leave_with 0

tdx:
    mov     $0x21, %eax
    xor     %ecx, %ecx
    cpuid
    mov     %ebx, %r8d
    must_be %r8d, $0x65746e49, "CPUID leaf 0x21 has another signature"
    mov     $1, %eax
    push    %r13
    tdcall_
    pop     %r13
    mov     %rcx, %r8
    say     "TDX guest: addresses of "
    say_hex %r8
    say     " bits\n"
    leave_with 0
