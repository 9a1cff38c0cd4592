// SPDX-License-Identifier: MIT
#include "ckvm_sys.h"
#include "ckvm_uapi.h"
