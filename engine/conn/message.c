#include "engine/conn/message.h"

#include "engine/base/assert.h"

#include "codec/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct rws__created {
    rws__lender lender;
    rws_allocator allocator; /* alloc NULL: malloc */
    atomic_uint holders;
    _Alignas(8) rws_message head;
    uint8_t room[RWS__PAYLOAD_ROOM];
    uint8_t data[];
} rws__created;

static_assert(offsetof(rws__created, data) - offsetof(rws__created, head) == RWS__MESSAGE_DATA &&
                  offsetof(rws__created, data) == sizeof(rws__created),
              "the payload follows the header at once");

static rws__created *created_of(const rws_message *message)
{
    return (rws__created *)(void *)((char *)message - offsetof(rws__created, head));
}

static rws__payload *payload_of(const rws_message *message)
{
    return (rws__payload *)(void *)((char *)message - offsetof(rws__payload, head));
}

/* Write the header of the frame before the payload. */
static void write_header(rws_message *head)
{
    rws__frame frame = {.payload_len = head->len, .opcode = head->opcode, .fin = true};
    head->header_len = (uint8_t)rws__frame_header_len(head->len, false);
    rws__frame_write((uint8_t *)head + RWS__MESSAGE_DATA - head->header_len, &frame);
}

/* ---- created ones ---- */

static void retain_created(rws__lender *lender)
{
    /* Relaxed: whoever adds a holder is one already. */
    atomic_fetch_add_explicit(&((rws__created *)lender)->holders, 1, memory_order_relaxed);
}

static void release_created(rws__lender *lender)
{
    rws__created *created = (rws__created *)lender;
    /* Release, then acquire by the last: the memory is given back after everybody's reads. */
    if (atomic_fetch_sub_explicit(&created->holders, 1, memory_order_acq_rel) != 1) return;
    rws_allocator allocator = created->allocator;
    if (allocator.release != NULL)
        allocator.release(created, sizeof(rws__created) + created->head.len, allocator.user);
    else
        free(created);
}

static const rws__lender_ops created_ops = {.release = release_created, .retain = retain_created};

/* NULL: there is no memory. */
static rws_message *create(const rws_allocator *allocator, uint8_t opcode, const void *data,
                           size_t len)
{
    size_t bytes = sizeof(rws__created) + len;
    rws__created *created =
        allocator->alloc != NULL ? allocator->alloc(bytes, allocator->user) : malloc(bytes);
    if (created == NULL) return NULL;
    *created = (rws__created){
        .lender = {&created_ops},
        .allocator = *allocator,
        .head = rws__message_head(RWS__MESSAGE_CREATED, opcode, len),
    };
    atomic_init(&created->holders, 1);
    write_header(&created->head);
    if (len > 0) memcpy(created->data, data, len);
    return &created->head;
}

int rws_message_create(rws_message **out, const rws_allocator *allocator, rws_opcode opcode,
                       const void *data, size_t len)
{
    static const rws_allocator standard;
    *out = NULL;
    if (!rws__may_send(opcode, data, len)) return RWS_E_ARGUMENT;
    if (allocator != NULL && (allocator->alloc == NULL || allocator->release == NULL))
        return RWS_E_ARGUMENT;
    *out = create(allocator != NULL ? allocator : &standard, (uint8_t)opcode, data, len);
    return *out != NULL ? 0 : -ENOMEM;
}

/* ---- received ones ---- */

void rws__message_from_payload(rws__payload *payload, uint8_t opcode)
{
    payload->head = rws__message_head(RWS__MESSAGE_PAYLOAD, opcode, payload->len);
    write_header(&payload->head);
}

static rws_message *copy_with_allocator(const rws_message *message, const rws__env *env)
{
    return create(&env->allocator, message->opcode, rws__message_data(message), message->len);
}

static rws_message *copy_out(const rws__received *received)
{
    size_t len = received->head.len;
    rws__payload *payload = rws__payload_take_retained(received->pool, len);
    if (payload == NULL) return copy_with_allocator(&received->head, received->pool->env);
    if (len > 0) memcpy(payload->data, received->data, len);
    payload->len = (uint32_t)len;
    rws__message_from_payload(payload, received->head.opcode);
    return &payload->head;
}

static rws_message *retain_payload(rws__payload *payload)
{
    if (rws__payload_retain(payload)) return &payload->head;
    return copy_with_allocator(&payload->head, payload->pool->env);
}

/* ---- all of them ---- */

rws_message *rws_message_retain(const rws_message *message)
{
    if (message == NULL) return NULL;
    switch (message->form) {
    case RWS__MESSAGE_CREATED: retain_created(&created_of(message)->lender); break;
    case RWS__MESSAGE_PAYLOAD: return retain_payload(payload_of(message));
    case RWS__MESSAGE_RECEIVED: return copy_out((const rws__received *)message);
    default: break; /* a constant */
    }
    return (rws_message *)message;
}

void rws_message_release(rws_message *message)
{
    if (message == NULL) return;
    switch (message->form) {
    case RWS__MESSAGE_CREATED: release_created(&created_of(message)->lender); break;
    case RWS__MESSAGE_PAYLOAD: rws__payload_drop(payload_of(message)); break;
    default: break;
    }
}

const void *rws_message_data(const rws_message *message)
{
    return rws__message_data(message);
}

size_t rws_message_len(const rws_message *message)
{
    return message->len;
}

rws_opcode rws_message_opcode(const rws_message *message)
{
    return (rws_opcode)message->opcode;
}

/* ---- loans ---- */

static void keep_constant(rws__lender *lender)
{
    (void)lender;
}

static const rws__lender_ops constant_ops = {.release = keep_constant, .retain = keep_constant};
static const rws__lender constant_lender = {&constant_ops};

bool rws__message_is_held(const rws_message *message)
{
    if (message->form == RWS__MESSAGE_PAYLOAD) return rws__payload_is_held(payload_of(message));
    return message->form != RWS__MESSAGE_RECEIVED;
}

rws__lender *rws__message_lend(const rws_message *message, const rws__pool *pool)
{
    if (message->form == RWS__MESSAGE_CREATED) {
        rws__lender *lender = &created_of(message)->lender;
        retain_created(lender);
        return lender;
    }
    RWS_ASSERT(message->form != RWS__MESSAGE_RECEIVED);
    if (message->form != RWS__MESSAGE_PAYLOAD) return (rws__lender *)&constant_lender;
    rws__payload *payload = payload_of(message);
    return payload->pool == pool ? rws__payload_lend(payload)
                                 : rws__payload_lend_elsewhere(payload);
}
