#include "support/toy_filter.h"

#include "engine/ring/random.h"

#include <errno.h>

/* ---- the toy filter ---- */

typedef struct toy_filter {
    rws__filter filter;
    bool client;
    uint64_t half; /* of the key; ours */
    toy_key in, out;
    rws__payload *partial; /* a record that has not come whole, or NULL */
} toy_filter;

static rws__pool *pool_of(const rws__filter *filter)
{
    return filter->stream->streams->partial;
}

static rws__filter_status malformed(rws__filter *filter)
{
    return rws__filter_fail(filter, RWS_E_ARGUMENT, RWS_CLOSED_BY_US, "not a record of the toy");
}

static rws__filter_status send_hello(toy_filter *toy, toy_type type)
{
    uint8_t *out = rws__filter_reserve(&toy->filter, TOY_HEADER + TOY_HELLO);
    if (out == NULL) return rws__filter_fail_no_memory(&toy->filter);
    return rws__filter_commit(&toy->filter, toy_write_hello(out, (uint8_t)type, toy->half));
}

static rws__filter_status start(rws__filter *filter)
{
    toy_filter *toy = (toy_filter *)filter;
    rws__random(&toy->half, sizeof toy->half);
    if (toy->client && send_hello(toy, TOY_CLIENT_HELLO) == RWS__FILTER_FAILED)
        return RWS__FILTER_FAILED;
    return RWS__FILTER_HANDSHAKING;
}

/* Both halves of the key are known. */
static rws__filter_status on_hello(toy_filter *toy, const uint8_t *payload)
{
    uint64_t theirs;
    memcpy(&theirs, payload, sizeof theirs);
    uint64_t client_half = toy->client ? toy->half : theirs;
    uint64_t server_half = toy->client ? theirs : toy->half;
    toy->in = toy_make_key(client_half, server_half, !toy->client);
    toy->out = toy_make_key(client_half, server_half, toy->client);
    return toy->client ? RWS__FILTER_OPEN : send_hello(toy, TOY_SERVER_HELLO);
}

static rws__filter_status on_record(toy_filter *toy, toy_record record, uint8_t *payload)
{
    rws__filter *filter = &toy->filter;
    toy_type hello = toy->client ? TOY_SERVER_HELLO : TOY_CLIENT_HELLO;
    if (filter->status == RWS__FILTER_HANDSHAKING)
        return record.type == hello ? on_hello(toy, payload) : malformed(filter);
    if (filter->status == RWS__FILTER_OPEN && record.type == TOY_END) return RWS__FILTER_ENDED;
    if (filter->status != RWS__FILTER_OPEN || record.type != TOY_DATA) return malformed(filter);
    toy_xor(&toy->in, payload, payload, record.len);
    rws__filter_pass_on(filter, payload, record.len);
    return RWS__FILTER_OPEN;
}

/* Take from the input what `partial` lacks of its first `whole` bytes. */
static int collect(toy_filter *toy, rws__filter_input *input, size_t whole)
{
    size_t had = toy->partial != NULL ? toy->partial->len : 0;
    size_t take = whole - had < input->len ? whole - had : input->len;
    int res = rws__payload_append(&toy->partial, pool_of(&toy->filter), input->data, take, whole);
    input->data += take;
    input->len -= take;
    return res;
}

/* The next record, which lies in the input or in `partial`. 1: it is whole, 0: more is needed, or
 * a negative status. */
static int next_record(toy_filter *toy, rws__filter_input *input, toy_record *record, uint8_t **at)
{
    if (toy->partial == NULL && input->len >= TOY_HEADER) {
        *record = toy_read_header(input->data);
        size_t whole = TOY_HEADER + record->len;
        if (record->type == 0) return RWS_E_ARGUMENT;
        if (input->len >= whole) {
            *at = input->data + TOY_HEADER;
            input->data += whole;
            input->len -= whole;
            return 1;
        }
    }
    if ((toy->partial == NULL || toy->partial->len < TOY_HEADER) &&
        collect(toy, input, TOY_HEADER) != 0)
        return -ENOMEM;
    if (toy->partial->len < TOY_HEADER) return 0;
    *record = toy_read_header(toy->partial->data);
    if (record->type == 0) return RWS_E_ARGUMENT;
    if (collect(toy, input, TOY_HEADER + record->len) != 0) return -ENOMEM;
    *at = toy->partial->data + TOY_HEADER;
    return toy->partial->len == TOY_HEADER + record->len;
}

static rws__filter_status toy_open(rws__filter *filter, rws__filter_input *input)
{
    toy_filter *toy = (toy_filter *)filter;
    rws__filter_status before = filter->status, status = before;
    while (input->len > 0 && status == before) {
        toy_record record;
        uint8_t *payload = NULL;
        int res = next_record(toy, input, &record, &payload);
        if (res == 0) break;
        if (res == -ENOMEM)
            return rws__filter_fail(filter, res, RWS_CLOSED_BY_US, "no memory for a record");
        if (res < 0) return malformed(filter);
        /* Taken out: what is passed on may end up here again. */
        rws__payload *partial = toy->partial;
        toy->partial = NULL;
        status = on_record(toy, record, payload);
        rws__payload_release(partial);
    }
    return status;
}

static rws__filter_status toy_seal(rws__filter *filter, const uint8_t *data, size_t len)
{
    toy_filter *toy = (toy_filter *)filter;
    while (len > 0) {
        size_t part = len < TOY_PAYLOAD_MAX ? len : TOY_PAYLOAD_MAX;
        uint8_t *out = rws__filter_reserve(filter, TOY_HEADER + part);
        if (out == NULL) return rws__filter_fail_no_memory(filter);
        rws__filter_status status =
            rws__filter_commit(filter, toy_write_data(&toy->out, out, data, part));
        if (status == RWS__FILTER_FAILED) return status;
        data += part;
        len -= part;
    }
    return RWS__FILTER_OPEN;
}

static rws__filter_status toy_end(rws__filter *filter)
{
    uint8_t *out = rws__filter_reserve(filter, TOY_HEADER);
    if (out == NULL) return rws__filter_fail_no_memory(filter);
    toy_write_header(out, TOY_END, 0);
    return rws__filter_commit(filter, TOY_HEADER);
}

static rws__filter_status toy_on_eof(rws__filter *filter)
{
    return rws__filter_fail(filter, RWS_E_CLOSED, RWS_CLOSED_BY_PEER,
                            "the connection was closed without an end record");
}

static void toy_free(rws__filter *filter)
{
    toy_filter *toy = (toy_filter *)filter;
    rws__payload_release(toy->partial);
    rws__pool_give(pool_of(filter), toy);
}

static const rws__filter_type toy_type_table = {
    .has_end_record = true,
    .growth_max = TOY_HEADER,
    .name = "toy",
    .start = start,
    .open = toy_open,
    .seal = toy_seal,
    .end = toy_end,
    .on_eof = toy_on_eof,
    .free = toy_free,
};

/* ---- the prefix filter ---- */

typedef struct prefix_filter {
    rws__filter filter;
    bool client;
    uint8_t matched; /* bytes of TOY_PREFIX */
} prefix_filter;

static rws__filter_status prefix_start(rws__filter *filter)
{
    size_t len = sizeof TOY_PREFIX - 1;
    if (!((prefix_filter *)filter)->client) return RWS__FILTER_HANDSHAKING;
    uint8_t *out = rws__filter_reserve(filter, len);
    if (out == NULL) return rws__filter_fail_no_memory(filter);
    memcpy(out, TOY_PREFIX, len);
    if (rws__filter_commit(filter, len) == RWS__FILTER_FAILED) return RWS__FILTER_FAILED;
    return RWS__FILTER_DONE;
}

static rws__filter_status prefix_open(rws__filter *filter, rws__filter_input *input)
{
    prefix_filter *prefix = (prefix_filter *)filter;
    while (input->len > 0) {
        if (*input->data != (uint8_t)TOY_PREFIX[prefix->matched])
            return rws__filter_fail(filter, RWS_E_ARGUMENT, RWS_CLOSED_BY_US, "not the prefix");
        input->data++;
        input->len--;
        if (++prefix->matched == sizeof TOY_PREFIX - 1) return RWS__FILTER_DONE;
    }
    return RWS__FILTER_HANDSHAKING;
}

/* Nothing passes it before it is out. */
static rws__filter_status prefix_seal(rws__filter *filter, const uint8_t *data, size_t len)
{
    (void)data;
    (void)len;
    return rws__filter_fail(filter, RWS_E_INTERNAL, RWS_CLOSED_BY_US, "sealed by a prefix");
}

static rws__filter_status prefix_end(rws__filter *filter)
{
    return prefix_seal(filter, NULL, 0);
}

static rws__filter_status prefix_on_eof(rws__filter *filter)
{
    return rws__filter_fail(filter, RWS_E_CLOSED, RWS_CLOSED_BY_PEER, "cut off in the prefix");
}

static void prefix_free(rws__filter *filter)
{
    rws__pool_give(pool_of(filter), filter);
}

static const rws__filter_type prefix_type = {
    .name = "prefix",
    .start = prefix_start,
    .open = prefix_open,
    .seal = prefix_seal,
    .end = prefix_end,
    .on_eof = prefix_on_eof,
    .free = prefix_free,
};

/* ---- putting them on a stream ---- */

static int push(rws__stream *stream, const rws__filter_type *type, size_t bytes, bool client)
{
    rws__pool *pool = stream->streams->partial;
    rws__filter *filter = rws__pool_take(pool, bytes);
    if (filter == NULL) return -ENOMEM;
    memset(filter, 0, bytes);
    filter->type = type;
    if (type == &toy_type_table)
        ((toy_filter *)filter)->client = client;
    else
        ((prefix_filter *)filter)->client = client;
    int res = rws__stream_push_filter(stream, filter);
    if (res != 0) rws__pool_give(pool, filter);
    return res;
}

int toy_make(const rws__filter_maker *maker, rws__stream *stream, const rws__filter_target *target)
{
    (void)target;
    const toy_maker *toy = (const toy_maker *)maker;
    int res = 0;
    for (uint8_t i = 0; i < toy->prefix && res == 0; i++)
        res = push(stream, &prefix_type, sizeof(prefix_filter), toy->client);
    for (uint8_t i = 0; i < toy->toys && res == 0; i++)
        res = push(stream, &toy_type_table, sizeof(toy_filter), toy->client);
    return res;
}

const toy_maker toy_server = {.maker = {toy_make}, .toys = 1};
const toy_maker toy_client = {.maker = {toy_make}, .client = true, .toys = 1};
