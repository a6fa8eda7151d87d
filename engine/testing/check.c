/*
 * What the program passes: a test or a peer that is NULL or was closed, a string that is NULL,
 * bytes behind an end. A handle is looked for among those of the thread before anything of it is
 * read.
 */
#include "engine/testing/kit.h"

bool rws__test_has(const void *argument, const char *name)
{
    return argument != NULL || rws__test_fail("%s is NULL", name);
}

bool rws__test_has_bytes(const void *data, size_t len)
{
    return data != NULL || len == 0 || rws__test_fail("data is NULL, but its length is %zu", len);
}

bool rws__test_is_open(const rws_test *test)
{
    if (test == NULL) return rws__test_fail("the test is NULL: was it opened?");
    for (const rws_test *open = rws__test_first(); open != NULL; open = open->next)
        if (open == test) return true;
    return rws__test_fail("the test is not open on this thread: it was closed before, or belongs "
                          "to another thread");
}

bool rws__peer_is_there(const rws_test_peer *peer)
{
    if (peer == NULL) return rws__test_fail("the peer is NULL: did it connect?");
    for (const rws_test *test = rws__test_first(); test != NULL; test = test->next)
        for (const rws_test_peer *own = test->peers; own != NULL; own = own->next)
            if (own == peer) return true;
    return rws__test_fail("the peer is of no test that is open on this thread: its test was closed "
                          "before, or belongs to another thread");
}

bool rws__peer_run(rws_test_peer *peer)
{
    return rws__peer_is_there(peer) && rws__test_run(peer->test);
}

bool rws__peer_can_feed(const rws_test_peer *peer)
{
    if (!rws__peer_is_there(peer) || !rws__test_is_at_rest(peer->test)) return false;
    if (!peer->end_wanted) return true;
    return rws__test_fail("peer %u has ended its half (rws_test_feed_end()): nothing can be fed "
                          "behind that",
                          peer->number);
}
