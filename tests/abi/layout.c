/*
 * What programs have compiled in: the head of a message, and where a constant's payload lies. Only
 * a new RWS_MESSAGE_LAYOUT may change it.
 */
#include <ringws/ringws.h>

#include <assert.h>

RWS_MESSAGE_TEXT_DEFINE(constant, "constant");

static_assert(RWS_MESSAGE_LAYOUT == 1 && RWS_MESSAGE_CONSTANT == 1, "as of 0.1");
static_assert(sizeof(rws_message) == 8, "the head");
static_assert(offsetof(rws_message, layout) == 0, "layout");
static_assert(offsetof(rws_message, form) == 1, "form");
static_assert(offsetof(rws_message, opcode) == 2, "opcode");
static_assert(offsetof(rws_message, header_len) == 3, "header_len");
static_assert(offsetof(rws_message, len) == 4, "len");
static_assert(offsetof(__typeof__(constant_rws_message), header) == 8, "room for the header");
static_assert(offsetof(__typeof__(constant_rws_message), payload) == 24, "the payload");
