/* Constants as programs write them, in C and C++. `all_messages` is all that is visible. */
#include "ringws/ringws.h"

RWS_MESSAGE_TEXT_DEFINE(greeting, "hello");
RWS_MESSAGE_BINARY_DEFINE(zeros, "\0\0\0");
RWS_MESSAGE_TEXT_DEFINE(empty, "");

typedef struct constants {
    const rws_message *messages[3];
} constants;
