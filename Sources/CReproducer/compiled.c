// SPDX-License-Identifier: MIT
// Compiles the whole runtime of exported programs, so that a mistake in a part that few tests use is found here.
#define _GNU_SOURCE
#define TEST_NAME "the runtime of exported programs"
// A program contains only the parts that its test uses; here nothing is used.
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-const-variable"
#include "runtime/headers.h"
#include "runtime/uapi.h"
#include "runtime/report.h"
#include "runtime/machine.h"
#include "runtime/access.h"
#include "runtime/convert.h"
#include "runtime/calls.h"
#include "runtime/hold.h"
#include "runtime/child.h"
#include "runtime/needs.h"
#include "runtime/converter.h"
#include "runtime/guest.h"
#include "runtime/slots.h"
#include "runtime/race.h"
