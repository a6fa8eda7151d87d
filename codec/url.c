#include "codec/url.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static int copy(char *out, size_t size, const char *from, size_t len)
{
    if (len >= size) return RWS_E_URL;
    memcpy(out, from, len);
    out[len] = '\0';
    return 0;
}

static bool is_clean(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text <= ' ' || *text == 0x7f || *text == '#') return false;
    return true;
}

static int parse_unix(rws__url *url, const char *rest)
{
    url->is_unix = true;
    const char *colon = strchr(rest, ':');
    size_t len = colon != NULL ? (size_t)(colon - rest) : strlen(rest);
    if (len == 0 || copy(url->host, sizeof url->host, rest, len) != 0) return RWS_E_URL;
    const char *target = colon != NULL ? colon + 1 : "/";
    if (*target != '/') return RWS_E_URL;
    strcpy(url->authority, "localhost");
    return copy(url->target, sizeof url->target, target, strlen(target));
}

static int parse_port(const char *text, size_t len, uint16_t *port)
{
    unsigned value = 0;
    if (len == 0 || len > 5) return RWS_E_URL;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') return RWS_E_URL;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    if (value == 0 || value > 65535) return RWS_E_URL;
    *port = (uint16_t)value;
    return 0;
}

/* host or [v6], and a port. */
static int parse_authority(rws__url *url, const char *text, size_t len)
{
    const char *host = text, *end = text + len, *host_end;
    if (len > 0 && *text == '[') {
        host = text + 1;
        host_end = memchr(text, ']', len);
        if (host_end == NULL) return RWS_E_URL;
        text = host_end + 1;
    } else {
        const char *colon = memchr(text, ':', len);
        host_end = colon != NULL ? colon : end;
        text = host_end;
    }
    if (host_end == host || memchr(host, '@', (size_t)(host_end - host)) != NULL) return RWS_E_URL;
    url->port = 80;
    if (text < end && (*text != ':' || parse_port(text + 1, (size_t)(end - text - 1), &url->port)))
        return RWS_E_URL;
    return copy(url->host, sizeof url->host, host, (size_t)(host_end - host));
}

int rws__url_parse(rws__url *url, const char *text)
{
    memset(url, 0, sizeof *url);
    if (!is_clean(text)) return RWS_E_URL;
    if (strncasecmp(text, "ws+unix://", 10) == 0) return parse_unix(url, text + 10);
    if (strncasecmp(text, "ws://", 5) != 0) return RWS_E_URL;
    text += 5;
    size_t len = strcspn(text, "/?");
    if (len >= sizeof url->authority || parse_authority(url, text, len) != 0) return RWS_E_URL;
    copy(url->authority, sizeof url->authority, text, len);
    const char *target = text + len;
    if (*target == '\0') target = "/";
    /* "ws://host?query" asks for "/?query". */
    int written =
        snprintf(url->target, sizeof url->target, "%s%s", *target == '?' ? "/" : "", target);
    return written < (int)sizeof url->target ? 0 : RWS_E_URL;
}
