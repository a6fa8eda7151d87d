#include "engine/base/features.h"

#include "ringws/ringws.h"

#include <stdio.h>
#include <string.h>

static const struct {
    uint32_t bit;
    const char *name, *text;
} features[] = {
    {RWS__FEATURE_INCREMENTAL_BUFFERS, "incremental_buffers",
     "receive buffers are filled bit by bit (Linux 6.12)"},
    {RWS__FEATURE_MULTISHOT_ACCEPT, "multishot_accept", "one submission accepts many connections"},
    {RWS__FEATURE_SOCKET_COMMANDS, "socket_commands",
     "the peer's address and what it has acknowledged are asked for on the ring (Linux 6.7)"},
    {RWS__FEATURE_SKIP_SUCCESS, "skip_success", "a send that succeeds posts no completion"},
    {RWS__FEATURE_DIRECT_LARGE, "direct_large",
     "large messages are received straight into their own memory"},
    {RWS__FEATURE_MULTISHOT_RECV, "multishot_recv", "one submission receives many times"},
    {RWS__FEATURE_SEND_ZC, "send_zc",
     "large messages are sent without a copy where the network card can (Linux 6.2, later 6.1)"},
    {RWS__FEATURE_REGISTERED_BUFFERS, "registered_buffers",
     "what is sent without a copy is registered once instead of pinned for each send"},
};

#define COUNT (sizeof features / sizeof features[0])

bool rws_feature_at(size_t index, const char **name, const char **text)
{
    if (index >= COUNT) return false;
    *name = features[index].name;
    *text = features[index].text;
    return true;
}

/* The bit of a name; 0: there is none. */
static uint32_t find(const char *name, size_t len)
{
    if (len == 3 && memcmp(name, "all", 3) == 0) return RWS__FEATURE_ALL;
    for (size_t i = 0; i < COUNT; i++)
        if (strlen(features[i].name) == len && memcmp(features[i].name, name, len) == 0)
            return features[i].bit;
    return 0;
}

int rws__features_parse(uint32_t *bits, const char *list, const char **unknown, size_t *len)
{
    *bits = 0;
    while (list != NULL && *list != '\0') {
        size_t name = strcspn(list, ",");
        uint32_t bit = find(list, name);
        if (bit == 0) {
            *unknown = list;
            *len = name;
            return RWS_E_OPTION;
        }
        *bits |= bit;
        list += name;
        if (*list == ',') list++;
    }
    return 0;
}

void rws__features_write(uint32_t bits, char *out, size_t size)
{
    size_t used = 0;
    if (size > 0) out[0] = '\0';
    for (size_t i = 0; i < COUNT && used < size; i++) {
        if (!(bits & features[i].bit)) continue;
        int len = snprintf(out + used, size - used, "%s%s", used > 0 ? "," : "", features[i].name);
        used += (size_t)len;
    }
}
