/* What the macros make takes no code: see constants-take-no-code. */
#include "constants.h"

extern const constants all_messages;
const constants all_messages = {{greeting, zeros, empty}};
