// SPDX-License-Identifier: MIT
// hello: boots, prints its environment and exits.
//
// It uses the boot contract: the boot information page in RDI, the console, the exit status. It prints the size of RAM,
// the number of vCPUs and the number of aliases, and converts nothing.
// Ends with exit status 0.
#define GUEST "hello"
#include "support.h"

    begin
    print   "Hello from ring 0.\n"

    print   "RAM: "
    mov     BOOT_RAM_SIZE(%r15), %r8
    shr     $10, %r8
    print_dec %r8
    print   " KiB, free from "
    print_hex BOOT_FREE_START(%r15)
    print   " to "
    print_hex BOOT_FREE_END(%r15)

    print   "\nvCPUs: "
    mov     BOOT_VCPUS(%r15), %r8d
    print_dec %r8

    print   "\naliases of RAM: "
    mov     BOOT_SHARED_BIT(%r15), %r8
    test    %r8, %r8
    jnz     two_aliases
    print   "one"
    jmp     calls
two_aliases:
    print   "two, the shared one at "
    print_hex %r8

calls:
    print   "\ncalls to the monitor: by "
    cmpb    $1, calls_by(%rip)
    je      by_vmmcall
    ja      by_vmcall
    print   "port\n"
    exit    0
by_vmmcall:
    print   "VMMCALL\n"
    exit    0
by_vmcall:
    print   "VMCALL\n"
    exit    0
