#include "support/scripted_ring.h"

#include "support/scripted_sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

uint64_t script_now_ms = 1000000;

uint64_t rws__clock_ms(void)
{
    return script_now_ms;
}

void rws__random(void *out, size_t len)
{
    /* xorshift32: a run can be repeated. */
    static uint32_t state = 2463534242u;
    for (uint8_t *at = out, *end = at + len; at < end; at++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *at = (uint8_t)state;
    }
}

static void *must_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes > 0 ? bytes : 1);
    if (memory == NULL) abort();
    return memory;
}

static void breach(rws__ring *ring, const char *what)
{
    if (ring->broken == NULL) ring->broken = what;
}

/* ---- operations ---- */

static bool is_send(script_kind kind)
{
    return kind == SCRIPT_SEND || kind == SCRIPT_SEND_QUIET || kind == SCRIPT_SEND_ZERO_COPY;
}

static bool is_recv(script_kind kind)
{
    return kind == SCRIPT_RECV || kind == SCRIPT_RECV_PROVIDED || kind == SCRIPT_RECV_MULTISHOT;
}

/* Queue an operation, or NULL if this call is to be refused. */
static script_op *queue(rws__ring *ring, script_kind kind, uint32_t file, uint64_t user_data)
{
    ring->calls++;
    if (ring->refuse[kind] > 0 || ring->calls == ring->refuse_call) {
        if (ring->refuse[kind] > 0) ring->refuse[kind]--;
        /* This is not tried again: the address stays unknown. */
        if (kind != SCRIPT_PEER) ring->refused = true;
        return NULL;
    }
    ring->calls_of[kind]++;
    script_op *op = must_alloc(sizeof *op);
    op->kind = kind;
    op->file = file;
    op->user_data = user_data;
    script_op **end = &ring->ops;
    while (*end != NULL)
        end = &(*end)->next;
    *end = op;
    return op;
}

static int queue_simple(rws__ring *ring, script_kind kind, uint32_t file, uint64_t user_data)
{
    return queue(ring, kind, file, user_data) != NULL ? 0 : -EAGAIN;
}

static void lend_memory(script_op *op, const void *memory, size_t len)
{
    op->memory = (uint8_t *)(uintptr_t)memory;
    op->len = len;
    op->copy = must_alloc(len);
    memcpy(op->copy, memory, len);
}

static int queue_memory(rws__ring *ring, script_kind kind, uint32_t file, const void *memory,
                        size_t len, uint64_t user_data)
{
    script_op *op = queue(ring, kind, file, user_data);
    if (op == NULL) return -EAGAIN;
    lend_memory(op, memory, len);
    return 0;
}

static void check_memory(rws__ring *ring, const script_op *op)
{
    if (op->copy == NULL || memcmp(op->copy, op->memory, op->len) == 0) return;
    breach(ring, is_send(op->kind) ? "the memory of a send in flight changed"
                                   : "the memory of a receive in flight changed");
}

static void drop(rws__ring *ring, script_op *op)
{
    script_op **at = &ring->ops;
    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
    free(op->copy);
    free(op);
}

script_op *script_find(rws__ring *ring, script_kind kind, uint32_t file)
{
    for (script_op *op = ring->ops; op != NULL; op = op->next)
        if (op->kind == kind && (file == UINT32_MAX || op->file == file)) return op;
    return NULL;
}

script_op *script_find_recv(rws__ring *ring, uint32_t file)
{
    for (script_op *op = ring->ops; op != NULL; op = op->next)
        if (is_recv(op->kind) && op->file == file) return op;
    return NULL;
}

static bool is_of_file(script_kind kind)
{
    return is_recv(kind) || is_send(kind) || kind == SCRIPT_CONNECT || kind == SCRIPT_SHUTDOWN ||
           kind == SCRIPT_CLOSE;
}

uint32_t script_count(const rws__ring *ring, uint32_t file)
{
    uint32_t count = 0;
    for (const script_op *op = ring->ops; op != NULL; op = op->next)
        if (is_of_file(op->kind) && op->file == file) count++;
    return count;
}

/* ---- completions ---- */

static void push(rws__ring *ring, rws__cqe cqe)
{
    if (ring->cqes_count == ring->cqes_capacity) {
        ring->cqes_capacity = ring->cqes_capacity * 2 + 64;
        ring->cqes = realloc(ring->cqes, ring->cqes_capacity * sizeof cqe);
        if (ring->cqes == NULL) abort();
    }
    ring->cqes[ring->cqes_count++] = cqe;
}

static void send_out(rws__ring *ring, const script_op *op, size_t len)
{
    check_memory(ring, op);
    if (len > op->len) {
        breach(ring, "the test completes a send with more than it has");
        len = op->len;
    }
    if (ring->closed[op->file]) breach(ring, "a send on a closed file");
    feed_bytes_append(&ring->wire[op->file], op->copy, len);
}

void script_complete(rws__ring *ring, script_op *op, int32_t res, uint32_t flags)
{
    if (is_send(op->kind) && res > 0) send_out(ring, op, (size_t)res);
    if (op->kind == SCRIPT_RECV && res <= 0) check_memory(ring, op);
    if (op->kind == SCRIPT_CLOSE) ring->closed[op->file] = true;
    if (op->kind == SCRIPT_INSTALL && res > 0)
        memcpy(op->memory, &(int32_t){ring->next_install++}, sizeof(int32_t));
    push(ring, (rws__cqe){op->user_data, res, flags});
    if (!(flags & RWS__CQE_MORE))
        drop(ring, op);
    else if (op->kind == SCRIPT_SEND_ZERO_COPY)
        op->notifies = true;
}

void script_notify(rws__ring *ring, script_op *op, bool copied)
{
    check_memory(ring, op);
    push(ring, (rws__cqe){op->user_data, copied ? (int32_t)RWS__NOTIFICATION_COPIED : 0,
                          RWS__CQE_NOTIFICATION});
    drop(ring, op);
}

/* Also a send that was cancelled is notified of. */
static void cancel_one(rws__ring *ring, script_op *op)
{
    bool notifies = op->kind == SCRIPT_SEND_ZERO_COPY;
    if (!op->notifies) script_complete(ring, op, -ECANCELED, notifies ? RWS__CQE_MORE : 0);
    if (notifies && !(ring->manual & SCRIPT_BIT(SCRIPT_SEND_ZERO_COPY)))
        script_notify(ring, op, true);
}

static script_block *new_block(size_t len)
{
    script_block *block = must_alloc(sizeof *block);
    block->bytes = must_alloc(len);
    block->len = len;
    block->holders = 1;
    return block;
}

static void drop_block(script_block *block)
{
    if (--block->holders > 0) return;
    free(block->bytes);
    free(block);
}

void script_join(rws__ring *ring, size_t len)
{
    if (ring->joined != NULL) abort();
    ring->joined = new_block(len);
}

/* Put data in a provided buffer; returns the flags of its completion. */
static uint32_t fill_buffer(rws__ring *ring, const void *data, size_t len)
{
    uint32_t index = 0;
    while (ring->buffers[index].block != NULL)
        if (++index == SCRIPT_BUFFERS) abort();
    script_block *block = ring->joined != NULL ? ring->joined : new_block(len);
    if (len > block->len - block->filled) abort();
    ring->buffers[index] = (script_buffer){
        .ring = ring, .block = block, .data = block->bytes + block->filled, .len = len};
    ring->buffers_out++;
    memcpy(block->bytes + block->filled, data, len);
    block->filled += len;
    if (block == ring->joined) {
        block->holders++;
        if (block->filled == block->len) {
            ring->joined = NULL;
            drop_block(block);
        }
    }
    return RWS__CQE_BUFFER | index << RWS__CQE_BUFFER_SHIFT;
}

size_t script_recv(rws__ring *ring, uint32_t file, const void *data, size_t len, bool last)
{
    script_op *op = script_find_recv(ring, file);
    if (op == NULL) return 0;
    if (op->len > 0 && len > op->len) len = op->len;
    uint32_t flags = 0;
    if (op->kind == SCRIPT_RECV) {
        check_memory(ring, op);
        memcpy(op->memory, data, len);
        memcpy(op->copy, data, len);
    } else {
        flags = fill_buffer(ring, data, len);
        if (op->kind == SCRIPT_RECV_MULTISHOT && !last) flags |= RWS__CQE_MORE;
    }
    script_complete(ring, op, (int32_t)len, flags);
    return len;
}

void script_forge(rws__ring *ring, uint64_t user_data, int32_t res, uint32_t flags,
                  const void *data)
{
    if (data != NULL) flags |= fill_buffer(ring, data, (size_t)res);
    push(ring, (rws__cqe){user_data, res, flags});
}

void script_cancel_closed(rws__ring *ring)
{
    for (script_op *op = ring->ops, *next; op != NULL; op = next) {
        next = op->next;
        if (is_of_file(op->kind) && op->kind != SCRIPT_CLOSE && ring->closed[op->file])
            cancel_one(ring, op);
    }
}

/* ---- registered memory ---- */

#define REGISTERED_PAGES_MAX 4096u

/* Whether all of its pages have memory: registering touched them, and what lost it since was given
 * back behind the kernel's back. */
static bool is_resident(uint8_t *memory, size_t len)
{
    static unsigned char resident[REGISTERED_PAGES_MAX];
    size_t count = len / (size_t)sysconf(_SC_PAGESIZE);
    if (count > REGISTERED_PAGES_MAX || mincore(memory, len, resident) != 0) abort();
    for (size_t i = 0; i < count; i++)
        if (!(resident[i] & 1)) return false;
    return true;
}

static void check_registered(rws__ring *ring)
{
    for (uint32_t i = 0; i < ring->registered_max; i++)
        if (ring->registered[i].memory != NULL &&
            !is_resident(ring->registered[i].memory, ring->registered[i].len))
            breach(ring, "pages of registered memory were given back");
}

static bool is_read(const rws__ring *ring, uint32_t index)
{
    for (const script_op *op = ring->ops; op != NULL; op = op->next)
        if (op->registered == index + 1) return true;
    return false;
}

int rws__ring_register(rws__ring *ring, uint32_t index, void *memory, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    ring->registers++;
    if (index >= ring->registered_max) return -EINVAL;
    if (ring->register_result != 0) return ring->register_result;
    if (ring->registered[index].memory != NULL || is_read(ring, index))
        breach(ring, "memory was registered in an entry that is in use");
    for (size_t at = 0; at < len; at += page) {
        volatile uint8_t *byte = (uint8_t *)memory + at;
        *byte = *byte;
    }
    ring->registered[index].memory = memory;
    ring->registered[index].len = len;
    return 0;
}

int rws__ring_unregister(rws__ring *ring, uint32_t index)
{
    ring->unregisters++;
    if (ring->unregister_result != 0) return ring->unregister_result;
    if (index >= ring->registered_max || ring->registered[index].memory == NULL) {
        breach(ring, "an empty entry was unregistered");
        return -EINVAL;
    }
    if (is_read(ring, index)) breach(ring, "memory was unregistered while a send reads it");
    check_registered(ring);
    ring->registered[index].memory = NULL;
    return 0;
}

static bool is_in_entry(const rws__ring *ring, uint32_t index, const uint8_t *data, size_t len)
{
    if (index >= ring->registered_max || ring->registered[index].memory == NULL) return false;
    const uint8_t *memory = ring->registered[index].memory;
    return data >= memory && data + len <= memory + ring->registered[index].len;
}

/* ---- turns ---- */

static void cancel(rws__ring *ring, const script_op *cancel)
{
    for (script_op *op = ring->ops, *next; op != NULL; op = next) {
        next = op->next;
        if (op == cancel || op->kind == SCRIPT_CLOSE || !op->submitted) continue;
        bool by_name = op->kind < SCRIPT_CANCEL || op->kind == SCRIPT_TIMEOUT;
        bool meant = cancel->kind == SCRIPT_CANCEL_FILE
                         ? is_of_file(op->kind) && op->file == cancel->file
                         : by_name && op->user_data == cancel->target;
        if (meant && !op->notifies) cancel_one(ring, op);
    }
}

/* What the peer has not got is thrown away. */
static void disconnect(rws__ring *ring, uint32_t file)
{
    if (ring->closed[file]) breach(ring, "a disconnect of a closed file");
    for (script_op *op = ring->ops, *next; op != NULL; op = next) {
        next = op->next;
        if (op->notifies && op->file == file) script_notify(ring, op, false);
    }
}

/* What an operation does that completes by itself, when its time has come. */
static void complete_usual(rws__ring *ring, script_op *op)
{
    switch (op->kind) {
    case SCRIPT_SEND: script_complete(ring, op, (int32_t)op->len, 0); return;
    case SCRIPT_SEND_ZERO_COPY:
        if (!op->notifies) script_complete(ring, op, (int32_t)op->len, RWS__CQE_MORE);
        script_notify(ring, op, ring->copies);
        return;
    case SCRIPT_SHUTDOWN:
    case SCRIPT_CONNECT:
    case SCRIPT_CLOSE: script_complete(ring, op, 0, 0); return;
    case SCRIPT_INSTALL: script_complete(ring, op, 1, 0); return;
    case SCRIPT_UNACKNOWLEDGED:
        script_complete(ring, op, (int32_t)ring->unacknowledged[op->file], 0);
        return;
    case SCRIPT_TIMEOUT:
        if (op->target <= script_now_ms) script_complete(ring, op, -ETIME, 0);
        return;
    case SCRIPT_READ_EVENT:
        if (script_event_take((int)op->file)) script_complete(ring, op, sizeof(uint64_t), 0);
        return;
    case SCRIPT_DISCONNECT: disconnect(ring, op->file); break;
    case SCRIPT_SEND_QUIET: send_out(ring, op, op->len); break;
    default: return;
    }
    drop(ring, op); /* it posts no completion */
}

/* Submit in order. A manual cancel is forgotten: the test completes what it was meant for. A quiet
 * send that the test has not completed by now was sent. */
static void submit(rws__ring *ring)
{
    uint32_t count = 0;
    for (script_op *op = ring->ops, *next; op != NULL; op = next) {
        if (!op->submitted && count++ == ring->submit_max) return;
        op->submitted = true;
        bool manual = ring->manual & SCRIPT_BIT(op->kind);
        bool is_cancel = op->kind == SCRIPT_CANCEL || op->kind == SCRIPT_CANCEL_FILE;
        if (is_cancel && !manual) cancel(ring, op); /* drops what was submitted before it */
        next = op->next;
        if (is_cancel)
            drop(ring, op);
        else if (!manual)
            complete_usual(ring, op);
    }
}

int rws__ring_turn(rws__ring *ring, bool wait)
{
    if (wait && ring->refused && ring->cqes_first == ring->cqes_count) ring->slept++;
    ring->refused = false;
    check_registered(ring);
    if (ring->turns_left == 0) return SCRIPT_STOP;
    ring->turns_left--;
    if (ring->turn_result != 0) return ring->turn_result;
    submit(ring);
    return 0;
}

uint32_t rws__ring_reap(rws__ring *ring, rws__cqe *out, uint32_t max)
{
    uint32_t count = 0;
    while (count < max && ring->cqes_first < ring->cqes_count)
        out[count++] = ring->cqes[ring->cqes_first++];
    if (ring->cqes_first == ring->cqes_count) ring->cqes_first = ring->cqes_count = 0;
    return count;
}

uint32_t rws__ring_pending(const rws__ring *ring)
{
    uint32_t count = 0;
    for (const script_op *op = ring->ops; op != NULL; op = op->next)
        if (!op->submitted) count++;
    return count;
}

/* ---- the rest of engine/ring/ring.h ---- */

int rws__ring_create(rws__ring **out, const rws__ring_options *options, const char **what)
{
    *what = "the script";
    rws__ring *ring = must_alloc(sizeof *ring);
    ring->features = RWS__FEATURE_ALL & ~options->features_off;
    ring->submit_max = UINT32_MAX;
    ring->registered_max = options->registered_max;
    ring->next_install = 100;
    *out = ring;
    return 0;
}

void rws__ring_destroy(rws__ring *ring)
{
    while (ring->ops != NULL)
        drop(ring, ring->ops);
    for (uint32_t i = 0; i < SCRIPT_FILES; i++)
        feed_bytes_free(&ring->wire[i]);
    for (uint32_t i = 0; i < SCRIPT_BUFFERS; i++)
        if (ring->buffers[i].block != NULL) drop_block(ring->buffers[i].block);
    if (ring->joined != NULL) drop_block(ring->joined);
    free(ring->cqes);
    free(ring);
}

uint32_t rws__ring_features(const rws__ring *ring)
{
    return ring->features;
}

uint64_t rws__ring_overflows(const rws__ring *ring)
{
    (void)ring;
    return 0;
}

uint64_t rws__ring_enters(const rws__ring *ring)
{
    (void)ring;
    return 0;
}

uint8_t *rws__ring_buffer(rws__ring *ring, const rws__cqe *cqe)
{
    script_buffer *buffer = &ring->buffers[cqe->flags >> RWS__CQE_BUFFER_SHIFT];
    if (buffer->block == NULL || buffer->seen)
        breach(ring, "a buffer was looked at twice, or was not given");
    buffer->seen = true;
    buffer->readers = 1;
    return buffer->data;
}

static void drop_reader(script_buffer *buffer)
{
    if (--buffer->readers > 0) return;
    /* The rest of its block may live on: whoever still reads this part reads something else. */
    memset(buffer->data, 0xdb, buffer->len);
    drop_block(buffer->block);
    buffer->block = NULL;
    buffer->ring->buffers_out--;
}

static void release_one(rws__lender *lender)
{
    drop_reader((script_buffer *)((char *)lender - offsetof(script_buffer, lender)));
}

static void release_two(rws__lender *lender)
{
    script_buffer *buffer = (script_buffer *)((char *)lender - offsetof(script_buffer, across));
    drop_reader(&buffer->ring->buffers[buffer->next]);
    drop_reader(buffer);
}

static const rws__lender_ops ops_of_one = {.release = release_one, .is_transient = true};
static const rws__lender_ops ops_of_two = {.release = release_two, .is_transient = true};

bool rws__ring_continues(const rws__ring *ring, const uint8_t *end, const rws__cqe *cqe)
{
    if (!(cqe->flags & RWS__CQE_BUFFER) || cqe->res <= 0 || ring->lends_none) return false;
    return ring->buffers[cqe->flags >> RWS__CQE_BUFFER_SHIFT].data == end;
}

/* The buffer that holds the byte at `at`, of those that were looked at and not recycled; or
 * SCRIPT_BUFFERS. */
static uint32_t find_buffer(const rws__ring *ring, const uint8_t *at)
{
    for (uint32_t index = 0; index < SCRIPT_BUFFERS; index++) {
        const script_buffer *buffer = &ring->buffers[index];
        if (buffer->block != NULL && buffer->seen && at >= buffer->data &&
            at < buffer->data + buffer->len)
            return index;
    }
    return SCRIPT_BUFFERS;
}

rws__lender *rws__ring_lend(rws__ring *ring, const uint8_t *data, size_t len)
{
    uint32_t first = find_buffer(ring, data), last = find_buffer(ring, data + len - 1);
    if (first == SCRIPT_BUFFERS || last == SCRIPT_BUFFERS ||
        ring->buffers[first].block != ring->buffers[last].block) {
        breach(ring, "bytes were lent that are in no buffer, or in one that was recycled");
        return NULL;
    }
    if (ring->lends_none) return NULL;
    script_buffer *buffer = &ring->buffers[first], *next = &ring->buffers[last];
    buffer->readers++;
    if (first == last) {
        buffer->lender = (rws__lender){&ops_of_one};
        return &buffer->lender;
    }
    if (buffer->data + buffer->len != next->data) { /* in more than two */
        buffer->readers--;
        return NULL;
    }
    next->readers++;
    buffer->next = last;
    buffer->across = (rws__lender){&ops_of_two};
    return &buffer->across;
}

void rws__ring_recycle(rws__ring *ring, const rws__cqe *cqe)
{
    script_buffer *buffer = &ring->buffers[cqe->flags >> RWS__CQE_BUFFER_SHIFT];
    if (buffer->block == NULL || !buffer->seen) {
        breach(ring, "a buffer was recycled twice, or was not looked at");
        return;
    }
    drop_reader(buffer);
}

int rws__ring_accept_multishot(rws__ring *ring, int listener, uint64_t user_data)
{
    return queue_simple(ring, SCRIPT_ACCEPT_MULTISHOT, (uint32_t)listener, user_data);
}

int rws__ring_accept_direct(rws__ring *ring, int listener, struct sockaddr *address, socklen_t *len,
                            uint64_t user_data)
{
    script_op *op = queue(ring, SCRIPT_ACCEPT_DIRECT, (uint32_t)listener, user_data);
    if (op == NULL) return -EAGAIN;
    op->memory = (uint8_t *)address;
    op->len = *len;
    return 0;
}

int rws__ring_accept_fd(rws__ring *ring, int listener, uint64_t user_data)
{
    return queue_simple(ring, SCRIPT_ACCEPT_FD, (uint32_t)listener, user_data);
}

int rws__ring_install(rws__ring *ring, int32_t *fd, uint64_t user_data)
{
    script_op *op = queue(ring, SCRIPT_INSTALL, (uint32_t)*fd, user_data);
    if (op == NULL) return -EAGAIN;
    op->memory = (uint8_t *)fd;
    return 0;
}

int rws__ring_peer(rws__ring *ring, uint32_t file, void *address, socklen_t len)
{
    script_op *op = queue(ring, SCRIPT_PEER, file, 0);
    if (op == NULL) return -EAGAIN;
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(4242)};
    peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memcpy(address, &peer, len < sizeof peer ? len : sizeof peer);
    drop(ring, op);
    return 0;
}

int rws__ring_recv_multishot(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    return queue_simple(ring, SCRIPT_RECV_MULTISHOT, file, user_data);
}

int rws__ring_recv_provided(rws__ring *ring, uint32_t file, size_t len, uint64_t user_data)
{
    script_op *op = queue(ring, SCRIPT_RECV_PROVIDED, file, user_data);
    if (op == NULL) return -EAGAIN;
    op->len = len;
    return 0;
}

int rws__ring_recv(rws__ring *ring, uint32_t file, void *data, size_t len, uint64_t user_data)
{
    return queue_memory(ring, SCRIPT_RECV, file, data, len, user_data);
}

int rws__ring_send(rws__ring *ring, uint32_t file, const void *data, size_t len, uint64_t user_data)
{
    return queue_memory(ring, SCRIPT_SEND, file, data, len, user_data);
}

int rws__ring_send_some(rws__ring *ring, uint32_t file, const void *data, size_t len,
                        uint64_t user_data)
{
    if (queue_memory(ring, SCRIPT_SEND, file, data, len, user_data) != 0) return -EAGAIN;
    script_op *op = ring->ops;
    while (op->next != NULL)
        op = op->next;
    op->some = true;
    return 0;
}

int rws__ring_unacknowledged(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    return queue_simple(ring, SCRIPT_UNACKNOWLEDGED, file, user_data);
}

int rws__ring_send_quiet(rws__ring *ring, uint32_t file, const void *data, size_t len,
                         uint64_t user_data)
{
    return queue_memory(ring, SCRIPT_SEND_QUIET, file, data, len, user_data);
}

int rws__ring_send_zero_copy(rws__ring *ring, uint32_t file, const void *data, size_t len,
                             uint64_t user_data)
{
    return queue_memory(ring, SCRIPT_SEND_ZERO_COPY, file, data, len, user_data);
}

int rws__ring_send_registered(rws__ring *ring, uint32_t file, const void *data, size_t len,
                              uint32_t index, uint64_t user_data)
{
    script_op *op = queue(ring, SCRIPT_SEND_ZERO_COPY, file, user_data);
    if (op == NULL) return -EAGAIN;
    lend_memory(op, data, len);
    if (!is_in_entry(ring, index, data, len))
        breach(ring, "a registered send reads what is not registered");
    op->registered = index + 1;
    ring->sends_registered++;
    return 0;
}

int rws__ring_disconnect(rws__ring *ring, uint32_t file)
{
    return queue_simple(ring, SCRIPT_DISCONNECT, file, 0);
}

int rws__ring_connect(rws__ring *ring, uint32_t file, const struct sockaddr *address, socklen_t len,
                      uint64_t user_data)
{
    (void)address;
    (void)len;
    return queue_simple(ring, SCRIPT_CONNECT, file, user_data);
}

int rws__ring_shutdown_write(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    return queue_simple(ring, SCRIPT_SHUTDOWN, file, user_data);
}

int rws__ring_close(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    return queue_simple(ring, SCRIPT_CLOSE, file, user_data);
}

int rws__ring_cancel(rws__ring *ring, uint64_t user_data)
{
    script_op *op = queue(ring, SCRIPT_CANCEL, 0, 0);
    if (op == NULL) return -EAGAIN;
    op->target = user_data;
    return 0;
}

int rws__ring_cancel_file(rws__ring *ring, uint32_t file)
{
    return queue_simple(ring, SCRIPT_CANCEL_FILE, file, 0);
}

int rws__ring_read_event(rws__ring *ring, int event, uint64_t *value, uint64_t user_data)
{
    (void)value;
    return queue_simple(ring, SCRIPT_READ_EVENT, (uint32_t)event, user_data);
}

int rws__ring_timeout(rws__ring *ring, uint64_t ms, uint64_t user_data)
{
    script_op *op = queue(ring, SCRIPT_TIMEOUT, 0, user_data);
    if (op == NULL) return -EAGAIN;
    op->target = script_now_ms + ms;
    return 0;
}

int rws__ring_timeout_update(rws__ring *ring, uint64_t ms, uint64_t user_data)
{
    if (queue_simple(ring, SCRIPT_TIMEOUT_UPDATE, 0, 0) != 0) return -EAGAIN;
    for (script_op *op = ring->ops; op != NULL; op = op->next)
        if (op->kind == SCRIPT_TIMEOUT && op->user_data == user_data)
            op->target = script_now_ms + ms;
    return 0;
}
