// SPDX-License-Identifier: MIT
#include "CReproducer.h"

// Each file after those that it uses, as in compiled.c.
static const unsigned char runtime[] = {
#embed "runtime/headers.h"
    ,
#embed "runtime/uapi.h"
    ,
#embed "runtime/report.h"
    ,
#embed "runtime/machine.h"
    ,
#embed "runtime/access.h"
    ,
#embed "runtime/convert.h"
    ,
#embed "runtime/calls.h"
    ,
#embed "runtime/hold.h"
    ,
#embed "runtime/child.h"
    ,
#embed "runtime/needs.h"
    ,
#embed "runtime/converter.h"
    ,
#embed "runtime/guest.h"
    ,
#embed "runtime/slots.h"
    ,
#embed "runtime/race.h"
};

static const unsigned char selftest[] = {
#embed "runtime/selftest.h"
};

static const unsigned char aliases[] = {
#embed "runtime/aliases.h"
};

const struct creproducer_text creproducer_aliases = {aliases, sizeof aliases};
const struct creproducer_text creproducer_selftest = {selftest, sizeof selftest};
const struct creproducer_text creproducer_runtime = {runtime, sizeof runtime};
