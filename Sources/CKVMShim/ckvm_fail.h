// SPDX-License-Identifier: MIT
// The system calls of a test's step, in which an allocation of the kernel can be made to fail.
#ifndef CKVM_FAIL_H
#define CKVM_FAIL_H

#include "CKVMShim.h"

struct ckvm_fail_state {
    // Allocations up to and including the one that is to fail; 0 if none is.
    unsigned left;
    // This thread's fail-nth.
    int fd;
    // The call in which the allocation failed, and its result; NULL before that.
    const char *call;
    long result;
};
// Only its own thread uses it.
extern __thread struct ckvm_fail_state ckvm_fail_state __attribute__((tls_model("initial-exec")));

// Before and after a system call. They write and read fail-nth as close to the call as possible, so that no other
// allocation is counted. `result` is the call's value or negative errno, which is returned.
void ckvm_fail_arm(void);
long ckvm_fail_disarm(const char *call, long result);
// Notes what another process has done with this thread's `left`.
void ckvm_fail_note(unsigned left, const char *call, long result);
// In a forked child: its parent's fail-nth is not its own.
void ckvm_fail_forget(void);

// Makes a system call of a step. `call` has the call's value or negative errno.
#define STEP_CALL(name, call)                                                         \
    ({                                                                                \
        bool is_armed_ = __builtin_expect(ckvm_fail_state.left != 0, 0);              \
        if (is_armed_) ckvm_fail_arm();                                               \
        long value_ = (call);                                                         \
        is_armed_ ? ckvm_fail_disarm(name, value_) : value_;                          \
    })

#endif
