/*
 * `ringws load --reconnect`: each connection is dialled, upgraded and closed with 1000, and dialled
 * again, until the time is over. One such cycle is what the other modes call a reply.
 *
 * A connection that failed is an error and stays away: nothing hammers at a server that is gone.
 */
#include "tools/host.h"
#include "tools/load.h"

/* The counters of the loop thread that is running: connections come back on any. */
static load_thread *thread_of(load_run *run, const rws_conn *conn)
{
    return &run->threads[rws_conn_shard(conn)];
}

/* The connection is not dialled any more. */
static void retire(load_run *run, const load_conn *c)
{
    if (c->opened) {
        atomic_fetch_add(&run->closed, 1);
    } else {
        atomic_fetch_add(&run->dial_failed, 1);
        sem_post(&run->dial_slots);
    }
}

static void on_open(rws_conn *conn, void *user)
{
    load_run *run = user;
    load_conn *c = rws_conn_user(conn);
    c->conn = conn;
    c->sent++;
    load_bump(&thread_of(run, conn)->sent, 1);
    if (!c->opened) {
        c->opened = true;
        atomic_fetch_add(&run->opened, 1);
        sem_post(&run->dial_slots);
    }
    load_finish(c);
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    load_run *run = user;
    load_conn *c = rws_conn_user(conn);
    load_thread *thread = thread_of(run, conn);
    uint64_t now = host_now_ns();
    c->conn = NULL;
    if (info->code != RWS_CLOSE_NORMAL) {
        load_bump(&thread->lost, 1);
        load_note_end(run, c, 0, info);
        retire(run, c);
        return;
    }

    load_phase phase = load_phase_of(run);
    load_bump(&thread->verified, 1);
    if (phase == LOAD_MEASURE) {
        load_bump(&thread->measured, 1);
        histogram_record(&thread->latency, now - c->dialled_ns);
    }
    atomic_store_explicit(&thread->last_reply_ns, now, memory_order_relaxed);
    if (phase == LOAD_STOP || !load_may_send(c)) {
        retire(run, c);
        return;
    }
    c->closing = false;
    c->dialled_ns = now;
    int status = load_dial(run, run->client, c);
    if (status == 0) return; /* from here on `c` may be another thread's */
    load_note_error(run, LOAD_CONNECT, "dial", "connection %u: %s", c->index, rws_strerror(status));
    retire(run, c);
}

static void on_dial_error(const rws_error *error, void *dial_user, void *user)
{
    load_run *run = user;
    const load_conn *c = dial_user;
    load_note_dial_error(run, c, error);
    retire(run, c);
}

rws_handler load_reconnect_handler(void)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_open = on_open;
    handler.on_close = on_close;
    handler.on_dial_error = on_dial_error;
    return handler;
}
