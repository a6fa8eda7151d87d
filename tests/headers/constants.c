/* What the macros make takes no code: see constants-take-no-code. */
#include "constants.h"

extern const constants all_messages;
const constants all_messages = {{
    (const rws_message *)(const void *)&greeting_rws_message,
    (const rws_message *)(const void *)&zeros_rws_message,
    (const rws_message *)(const void *)&empty_rws_message,
}};
