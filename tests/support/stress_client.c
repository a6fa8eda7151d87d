#include "support/stress_client.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define OUT_BYTES 65536u
#define IN_BYTES  65536u
/* Less than the server's high watermark, so that a stalled reader is felt there. */
#define RECV_BUFFER_BYTES 32768
#define CHECK_BYTES       4096u
#define WRITES_PER_TURN   4
/* With a filter: records have at least this many bytes, and so all their headers fit. */
#define SEAL_MIN     64u
#define SEALED_EXTRA (TOY_HEADER * (OUT_BYTES + 256) / SEAL_MIN + TOY_HEADER)

typedef enum phase { SENDING, CLOSING, ENDING, DONE, PHASE_COUNT } phase;
static const char *const phase_names[PHASE_COUNT] = {"sends", "waits for the close frame",
                                                     "waits for the end", "is done"};

struct stress_conn {
    raw_client raw;
    stress_clients *clients;
    stress_random random;
    stress_totals totals;

    /* Writing. */
    stress_message message; /* being sent */
    size_t out_at, out_len;
    size_t message_at, frame_left, frame_at;
    uint64_t write_after_ms;
    uint32_t next_number, frames_left;
    uint8_t key[4];

    /* Reading. */
    uint32_t expected_number;
    stress_message expected;
    size_t in_len, expected_at, control_len;
    uint64_t payload_left, read_after_ms;

    /* For the dump. */
    _Atomic uint64_t sent_messages, echoed_messages, sent_pings, echoed_pings, sent_bytes,
        received_bytes, out_left;
    _Atomic uint32_t phase;

    uint32_t index;
    bool in_message, all_sent, in_echo;
    uint8_t first; /* byte of the frame that is read */
    uint8_t control[128];
    uint8_t in[IN_BYTES];
    uint8_t wire[IN_BYTES];
    uint8_t out[OUT_BYTES + 256 + SEALED_EXTRA];
    uint8_t sealed[OUT_BYTES + 256 + SEALED_EXTRA];
};

struct stress_clients {
    stress_plan plan;
    stress_conn *conns;
    pthread_t *threads;
    uint32_t threads_started;
    _Atomic uint32_t next_thread, threads_ended;
    atomic_bool failed, stop;
    pthread_mutex_t lock;
    char why[512];
};

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* The first failure ends the test. Returns false. */
__attribute__((format(printf, 2, 3))) static bool fail(stress_conn *conn, const char *format, ...)
{
    stress_clients *clients = conn->clients;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&clients->lock);
    if (clients->why[0] == '\0')
        snprintf(clients->why, sizeof clients->why, "connection %u: %s", conn->index, text);
    pthread_mutex_unlock(&clients->lock);
    atomic_store(&clients->failed, true);
    return false;
}

/* ---- writing ---- */

static void append_frame(stress_conn *conn, uint8_t first, const void *payload, size_t len)
{
    uint8_t key[4];
    uint64_t random = stress_next(&conn->random);
    memcpy(key, &random, sizeof key);
    conn->out_len += raw_frame_header(conn->out + conn->out_len, first, len, key);
    memcpy(conn->out + conn->out_len, payload, len);
    raw_mask(conn->out + conn->out_len, len, key, 0);
    conn->out_len += len;
}

/* The payload of ping `number`. */
static size_t ping_content(const stress_conn *conn, uint64_t number, uint8_t *out)
{
    size_t len = (number * 7) % 126;
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(number + i + conn->index);
    return len;
}

static void append_ping(stress_conn *conn)
{
    uint8_t payload[125];
    size_t len = ping_content(conn, conn->totals.pings, payload);
    append_frame(conn, RAW_PING, payload, len);
    conn->totals.pings++;
    add(&conn->sent_pings, 1);
}

static bool has_quota(const stress_conn *conn)
{
    const stress_plan *plan = &conn->clients->plan;
    return conn->totals.messages * plan->connections < plan->messages ||
           conn->totals.bytes * plan->connections < plan->bytes;
}

/* The header of the next frame, of a new message if the last one is finished. */
static void begin_frame(stress_conn *conn)
{
    uint8_t first = 0;
    if (!conn->in_message) {
        conn->message = stress_message_of(&conn->clients->plan, conn->index, conn->next_number++);
        conn->in_message = true;
        conn->message_at = 0;
        conn->frames_left = conn->message.frames;
        first = conn->message.text ? 1 : 2;
    }
    conn->frames_left--;
    size_t left = conn->message.size - conn->message_at;
    /* Some of the frames are empty by chance, some by intent. */
    if (conn->frames_left == 0)
        conn->frame_left = left;
    else if (stress_below(&conn->random, 8) == 0)
        conn->frame_left = 0;
    else
        conn->frame_left = stress_below(&conn->random, (uint32_t)left + 1);
    if (conn->frames_left == 0) first |= RAW_FIN;
    conn->frame_at = 0;
    uint64_t random = stress_next(&conn->random);
    memcpy(conn->key, &random, sizeof conn->key);
    conn->out_len +=
        raw_frame_header(conn->out + conn->out_len, first, conn->frame_left, conn->key);
    conn->totals.frames++;
}

static void end_message(stress_conn *conn)
{
    conn->in_message = false;
    conn->totals.messages++;
    conn->totals.bytes += conn->message.size;
    add(&conn->sent_messages, 1);
    if (!has_quota(conn)) conn->all_sent = true;
}

/* With a filter: what is to be written, in records of random sizes. */
static void seal(stress_conn *conn)
{
    size_t at = 0, len = 0;
    while (conn->raw.filtered && at < conn->out_len) {
        size_t part = SEAL_MIN + stress_below(&conn->random, TOY_PAYLOAD_MAX - SEAL_MIN);
        if (part > conn->out_len - at) part = conn->out_len - at;
        len += raw_seal(&conn->raw, conn->sealed + len, conn->out + at, part);
        at += part;
    }
    if (!conn->raw.filtered) return;
    memcpy(conn->out, conn->sealed, len);
    conn->out_len = len;
}

/* Fill the buffer; frames follow each other without regard to its bounds. */
static void produce(stress_conn *conn)
{
    conn->out_at = conn->out_len = 0;
    while (!conn->all_sent && conn->out_len < OUT_BYTES) {
        if (conn->frame_left == 0) {
            if (stress_below(&conn->random, 64) == 0) append_ping(conn);
            begin_frame(conn);
        }
        size_t len = OUT_BYTES > conn->out_len ? OUT_BYTES - conn->out_len : 0;
        if (len > conn->frame_left) len = conn->frame_left;
        uint8_t *out = conn->out + conn->out_len;
        stress_content(&conn->message, conn->message_at, out, len);
        raw_mask(out, len, conn->key, conn->frame_at);
        conn->out_len += len;
        conn->frame_at += len;
        conn->frame_left -= len;
        conn->message_at += len;
        if (conn->frame_left == 0 && conn->frames_left == 0) end_message(conn);
    }
    seal(conn);
}

/* How much of `have` the next write takes. */
static size_t cut(stress_conn *conn, size_t have)
{
    uint32_t kind = stress_below(&conn->random, 10);
    uint32_t most = kind == 0 ? 16 : kind < 4 ? 1500 : OUT_BYTES;
    size_t len = 1 + stress_below(&conn->random, most);
    return len < have ? len : have;
}

static bool write_some(stress_conn *conn)
{
    for (int i = 0; i < WRITES_PER_TURN; i++) {
        if (conn->out_at == conn->out_len) produce(conn);
        if (conn->out_at == conn->out_len) return true;
        size_t len = cut(conn, conn->out_len - conn->out_at);
        ssize_t sent =
            send(conn->raw.fd, conn->out + conn->out_at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            conn->totals.full_writes++;
            return true;
        }
        if (sent < 0) return fail(conn, "send: %s", strerror(errno));
        conn->out_at += (size_t)sent;
        conn->totals.writes++;
        if (conn->out_at < conn->out_len) conn->totals.cut_writes++;
        if ((size_t)sent < len) conn->totals.full_writes++;
        add(&conn->sent_bytes, (uint64_t)sent);
        atomic_store_explicit(&conn->out_left, conn->out_len - conn->out_at, memory_order_relaxed);
    }
    if (stress_below(&conn->random, 200) == 0)
        conn->write_after_ms = now_ms() + 1 + stress_below(&conn->random, 10);
    return true;
}

/* ---- reading ---- */

static bool check_data(stress_conn *conn, const uint8_t *data, size_t len)
{
    if (conn->expected_at + len > conn->expected.size)
        return fail(conn, "the echo of message %u is longer than its %u bytes",
                    conn->expected.number, conn->expected.size);
    uint8_t wanted[CHECK_BYTES];
    while (len > 0) {
        size_t part = len < sizeof wanted ? len : sizeof wanted;
        stress_content(&conn->expected, conn->expected_at, wanted, part);
        for (size_t i = 0; memcmp(data, wanted, part) != 0 && i < part; i++)
            if (data[i] != wanted[i])
                return fail(conn,
                            "byte %zu of the echo of message %u (%u bytes) is %02x instead of %02x",
                            conn->expected_at + i, conn->expected.number, conn->expected.size,
                            data[i], wanted[i]);
        conn->expected_at += part;
        data += part;
        len -= part;
    }
    return true;
}

static bool begin_echo_frame(stress_conn *conn)
{
    uint8_t opcode = conn->first & 0x0F;
    if (opcode == 0) {
        if (!conn->in_echo) return fail(conn, "a continuation of nothing");
        return true;
    }
    if (conn->in_echo) return fail(conn, "a new message within message %u", conn->expected.number);
    conn->expected = stress_message_of(&conn->clients->plan, conn->index, conn->expected_number++);
    conn->expected_at = 0;
    conn->in_echo = true;
    if (opcode != (conn->expected.text ? 1 : 2))
        return fail(conn, "the echo of message %u has opcode %u", conn->expected.number, opcode);
    return true;
}

static bool end_pong(stress_conn *conn)
{
    uint8_t wanted[125];
    uint64_t number = atomic_load_explicit(&conn->echoed_pings, memory_order_relaxed);
    size_t len = ping_content(conn, number, wanted);
    if (number >= conn->totals.pings) return fail(conn, "a pong that nobody asked for");
    if (conn->control_len != len || memcmp(conn->control, wanted, len) != 0)
        return fail(conn, "pong %llu has another payload than its ping",
                    (unsigned long long)number);
    add(&conn->echoed_pings, 1);
    return true;
}

static bool end_frame(stress_conn *conn)
{
    if (conn->first == RAW_PONG) return end_pong(conn);
    if (conn->first == RAW_CLOSE) {
        if (atomic_load(&conn->phase) != CLOSING || conn->control_len != 2 ||
            conn->control[0] != 0x03 || conn->control[1] != 0xE8)
            return fail(conn, "a close frame (%zu bytes) that is not the answer to ours",
                        conn->control_len);
        atomic_store(&conn->phase, ENDING);
        return true;
    }
    if (!(conn->first & RAW_FIN)) return true;
    if (conn->expected_at != conn->expected.size)
        return fail(conn, "the echo of message %u has %zu of its %u bytes", conn->expected.number,
                    conn->expected_at, conn->expected.size);
    conn->in_echo = false;
    add(&conn->echoed_messages, 1);
    return true;
}

/* Take a header from `at`; its length, 0 if it is not whole, -1 on failure. */
static int take_header(stress_conn *conn, const uint8_t *at, size_t have)
{
    if (have < 2) return 0;
    uint8_t len7 = at[1] & 0x7F;
    int header = len7 == 126 ? 4 : len7 == 127 ? 10 : 2;
    if (have < (size_t)header) return 0;
    conn->first = at[0];
    conn->payload_left = header == 2 ? len7 : 0;
    for (int i = 2; i < header; i++)
        conn->payload_left = conn->payload_left << 8 | at[i];
    conn->control_len = 0;
    uint8_t opcode = at[0] & 0x0F;
    bool known = opcode <= 2 || at[0] == RAW_PONG || at[0] == RAW_CLOSE;
    if ((at[0] & 0x70) != 0 || (at[1] & 0x80) != 0 || !known)
        return fail(conn, "a frame with the header %02x %02x", at[0], at[1]) - 1;
    if (opcode >= 8) return conn->payload_left <= 125 ? header : fail(conn, "a long pong") - 1;
    return begin_echo_frame(conn) ? header : -1;
}

/* What came: frames, cut anywhere. */
static bool consume(stress_conn *conn)
{
    size_t at = 0;
    bool in_frame = conn->payload_left > 0;
    for (;;) {
        if (!in_frame) {
            int header = take_header(conn, conn->in + at, conn->in_len - at);
            if (header < 0) return false;
            if (header == 0) break;
            at += (size_t)header;
        }
        size_t len = conn->in_len - at;
        if (len > conn->payload_left) len = (size_t)conn->payload_left;
        if ((conn->first & 0x0F) >= 8) {
            memcpy(conn->control + conn->control_len, conn->in + at, len);
            conn->control_len += len;
        } else if (!check_data(conn, conn->in + at, len)) {
            return false;
        }
        at += len;
        conn->payload_left -= len;
        if (conn->payload_left > 0) break;
        if (!end_frame(conn)) return false;
        in_frame = false;
    }
    memmove(conn->in, conn->in + at, conn->in_len - at);
    conn->in_len -= at;
    return true;
}

static void stall_sometimes(stress_conn *conn)
{
    uint32_t kind = stress_below(&conn->random, 4000);
    uint32_t most = kind < 2 ? 300 : kind < 60 ? 20 : 0;
    if (most == 0) return;
    conn->read_after_ms = now_ms() + 1 + stress_below(&conn->random, most);
    conn->totals.stalls++;
}

/* Records that came, cut anywhere. */
static bool consume_records(stress_conn *conn, size_t len)
{
    raw_client *raw = &conn->raw;
    if (raw_unseal(raw, conn->wire, len) < 0) return fail(conn, "not a record of the filter");
    for (size_t at = 0; at < raw->in_len;) {
        size_t part = sizeof conn->in - conn->in_len;
        if (part > raw->in_len - at) part = raw->in_len - at;
        memcpy(conn->in + conn->in_len, raw->in + at, part);
        conn->in_len += part;
        at += part;
        if (!consume(conn)) return false;
    }
    raw->in_len = 0;
    return true;
}

static bool read_some(stress_conn *conn)
{
    bool filtered = conn->raw.filtered;
    uint8_t *in = filtered ? conn->wire : conn->in + conn->in_len;
    size_t room = filtered ? sizeof conn->wire : sizeof conn->in - conn->in_len;
    size_t len = 1 + stress_below(&conn->random, (uint32_t)room);
    ssize_t got = recv(conn->raw.fd, in, len, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (got < 0) return fail(conn, "recv: %s", strerror(errno));
    if (got == 0) {
        if (atomic_load(&conn->phase) != ENDING) return fail(conn, "the connection ended early");
        if (filtered && !conn->raw.ended) return fail(conn, "there was no end record");
        atomic_store(&conn->phase, DONE);
        return true;
    }
    add(&conn->received_bytes, (uint64_t)got);
    stall_sometimes(conn);
    if (filtered) return consume_records(conn, (size_t)got);
    conn->in_len += (size_t)got;
    return consume(conn);
}

/* ---- threads ---- */

static bool is_echoed(const stress_conn *conn)
{
    return conn->all_sent && conn->out_at == conn->out_len &&
           atomic_load_explicit(&conn->echoed_messages, memory_order_relaxed) ==
               conn->totals.messages &&
           atomic_load_explicit(&conn->echoed_pings, memory_order_relaxed) == conn->totals.pings;
}

/* Everything came back: say goodbye. */
static void close_when_echoed(stress_conn *conn)
{
    if (atomic_load(&conn->phase) != SENDING || !is_echoed(conn)) return;
    static const uint8_t normal[] = {0x03, 0xE8};
    conn->out_at = conn->out_len = 0;
    append_frame(conn, RAW_CLOSE, normal, sizeof normal);
    seal(conn);
    atomic_store(&conn->phase, CLOSING);
}

static bool wants_write(const stress_conn *conn)
{
    return conn->out_at < conn->out_len || !conn->all_sent;
}

/* What to wait for; lowers `*timeout` to when a stall ends. */
static struct pollfd wish(stress_conn *conn, uint64_t now, int *timeout)
{
    struct pollfd poll_fd = {.fd = conn->raw.fd};
    uint64_t wake = UINT64_MAX;
    if (conn->read_after_ms > now)
        wake = conn->read_after_ms;
    else
        poll_fd.events = POLLIN;
    if (wants_write(conn)) {
        if (conn->write_after_ms <= now)
            poll_fd.events |= POLLOUT;
        else if (conn->write_after_ms < wake)
            wake = conn->write_after_ms;
    }
    if (wake != UINT64_MAX && wake - now < (uint64_t)*timeout) *timeout = (int)(wake - now);
    /* A stalled one must not wake us by a hang-up. */
    if (poll_fd.events == 0) poll_fd.fd = -1;
    return poll_fd;
}

static void run_conns(stress_clients *clients, uint32_t first, struct pollfd *fds)
{
    uint32_t step = clients->plan.threads;
    for (;;) {
        uint64_t now = now_ms();
        int timeout = 100;
        uint32_t count = 0, left = 0;
        for (uint32_t i = first; i < clients->plan.connections; i += step) {
            stress_conn *conn = &clients->conns[i];
            bool done = atomic_load(&conn->phase) == DONE;
            fds[count].fd = -1;
            if (!done) fds[count] = wish(conn, now, &timeout);
            left += !done;
            count++;
        }
        if (left == 0 || atomic_load(&clients->stop) || atomic_load(&clients->failed)) return;
        if (poll(fds, count, timeout) <= 0) continue;
        for (uint32_t i = 0; i < count; i++) {
            stress_conn *conn = &clients->conns[first + i * step];
            if ((fds[i].revents & POLLOUT) && !write_some(conn)) return;
            if ((fds[i].revents & (POLLIN | POLLERR | POLLHUP)) && !read_some(conn)) return;
            if (fds[i].revents != 0) close_when_echoed(conn);
        }
    }
}

static void *thread_main(void *arg)
{
    stress_clients *clients = arg;
    uint32_t first = atomic_fetch_add(&clients->next_thread, 1);
    struct pollfd *fds = calloc(clients->plan.connections, sizeof *fds);
    if (fds != NULL)
        run_conns(clients, first, fds);
    else
        fail(&clients->conns[first], "no memory");
    free(fds);
    atomic_fetch_add(&clients->threads_ended, 1);
    return NULL;
}

static bool open_conn(stress_clients *clients, uint32_t index, uint16_t port)
{
    stress_conn *conn = &clients->conns[index];
    conn->clients = clients;
    conn->index = index;
    conn->random.state = stress_mix(clients->plan.seed, UINT64_MAX - index);
    if (!raw_connect(&conn->raw, "127.0.0.1", port, RECV_BUFFER_BYTES))
        return fail(conn, "can't connect: %s", strerror(errno));
    return raw_upgrade(&conn->raw) || fail(conn, "the upgrade failed");
}

stress_clients *stress_clients_start(const stress_plan *plan, uint16_t port)
{
    stress_clients *clients = calloc(1, sizeof *clients);
    if (clients == NULL) return NULL;
    clients->plan = *plan;
    if (clients->plan.threads > plan->connections) clients->plan.threads = plan->connections;
    pthread_mutex_init(&clients->lock, NULL);
    clients->conns = calloc(plan->connections, sizeof *clients->conns);
    clients->threads = calloc(clients->plan.threads, sizeof *clients->threads);
    bool good = clients->conns != NULL && clients->threads != NULL;
    for (uint32_t i = 0; good && i < plan->connections; i++)
        clients->conns[i].raw.fd = -1;
    for (uint32_t i = 0; good && i < plan->connections; i++)
        good = open_conn(clients, i, port);
    for (uint32_t i = 0; good && i < clients->plan.threads; i++) {
        good = pthread_create(&clients->threads[i], NULL, thread_main, clients) == 0;
        clients->threads_started += good;
    }
    if (good) return clients;
    stress_totals totals;
    const char *why = stress_clients_finish(clients, &totals);
    fprintf(stderr, "the clients can't start: %s\n", why != NULL ? why : "no memory or threads");
    return NULL;
}

bool stress_clients_are_done(stress_clients *clients)
{
    return atomic_load(&clients->threads_ended) == clients->plan.threads ||
           atomic_load(&clients->failed);
}

uint64_t stress_clients_progress(stress_clients *clients)
{
    uint64_t sum = atomic_load(&clients->threads_ended);
    for (uint32_t i = 0; i < clients->plan.connections; i++) {
        stress_conn *conn = &clients->conns[i];
        sum += atomic_load_explicit(&conn->sent_bytes, memory_order_relaxed);
        sum += atomic_load_explicit(&conn->received_bytes, memory_order_relaxed);
        sum += atomic_load(&conn->phase);
    }
    return sum;
}

void stress_clients_dump(stress_clients *clients, FILE *out)
{
    for (uint32_t i = 0; i < clients->plan.connections; i++) {
        stress_conn *conn = &clients->conns[i];
        fprintf(out,
                "  connection %u %s: messages %llu sent, %llu back; pings %llu, pongs %llu; bytes "
                "%llu sent (%llu wait for the socket), %llu back\n",
                i, phase_names[atomic_load(&conn->phase)],
                (unsigned long long)atomic_load(&conn->sent_messages),
                (unsigned long long)atomic_load(&conn->echoed_messages),
                (unsigned long long)atomic_load(&conn->sent_pings),
                (unsigned long long)atomic_load(&conn->echoed_pings),
                (unsigned long long)atomic_load(&conn->sent_bytes),
                (unsigned long long)atomic_load(&conn->out_left),
                (unsigned long long)atomic_load(&conn->received_bytes));
    }
}

static void add_totals(stress_totals *sum, const stress_totals *one)
{
    sum->messages += one->messages;
    sum->bytes += one->bytes;
    sum->frames += one->frames;
    sum->pings += one->pings;
    sum->writes += one->writes;
    sum->cut_writes += one->cut_writes;
    sum->full_writes += one->full_writes;
    sum->stalls += one->stalls;
}

const char *stress_clients_finish(stress_clients *clients, stress_totals *totals)
{
    static char why[sizeof clients->why];
    atomic_store(&clients->stop, true);
    for (uint32_t i = 0; i < clients->threads_started; i++)
        pthread_join(clients->threads[i], NULL);
    memset(totals, 0, sizeof *totals);
    bool all_done = clients->conns != NULL;
    for (uint32_t i = 0; clients->conns != NULL && i < clients->plan.connections; i++) {
        stress_conn *conn = &clients->conns[i];
        add_totals(totals, &conn->totals);
        if (atomic_load(&conn->phase) != DONE) all_done = false;
        raw_close(&conn->raw);
    }
    snprintf(why, sizeof why, "%s",
             clients->why[0] != '\0' ? clients->why : "not every connection came to its end");
    pthread_mutex_destroy(&clients->lock);
    free(clients->conns);
    free(clients->threads);
    free(clients);
    return all_done ? NULL : why;
}
