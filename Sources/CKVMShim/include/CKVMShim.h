#include "ckvm_sys.h"
#include "ckvm_uapi.h"
