#include "unicorn_shim.h"
