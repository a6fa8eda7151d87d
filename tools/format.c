#include "tools/format.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

const char *format_count(format_text *out, uint64_t value)
{
    char digits[24];
    int count = snprintf(digits, sizeof(digits), "%" PRIu64, value);

    size_t at = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) out->text[at++] = ',';
        out->text[at++] = digits[i];
    }
    out->text[at] = '\0';
    return out->text;
}

/* `value` with three significant digits; whole numbers below 1000 stay whole. */
static void write_scaled(format_text *out, double value, const char *unit)
{
    int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    snprintf(out->text, sizeof(out->text), "%.*f %s", decimals, value, unit);
}

const char *format_rate(format_text *out, double per_second, const char *unit)
{
    static const char *const prefixes[] = {"", "k", "M", "G", "T"};

    size_t step = 0;
    while (per_second >= 999.5 && step + 1 < sizeof(prefixes) / sizeof(prefixes[0])) {
        per_second /= 1000;
        step++;
    }
    if (per_second == 0) {
        snprintf(out->text, sizeof(out->text), "0 %s", unit);
        return out->text;
    }
    bool symbol = unit[1] == '/';
    char whole_unit[16];
    snprintf(whole_unit, sizeof(whole_unit), "%s%s%s", prefixes[step],
             symbol || step == 0 ? "" : " ", unit);
    write_scaled(out, per_second, whole_unit);
    return out->text;
}

const char *format_bytes(format_text *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

    size_t step = 0;
    double value = (double)bytes;
    while (value >= 1024 && step + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        step++;
    }
    if (value == (double)(uint64_t)value)
        snprintf(out->text, sizeof(out->text), "%" PRIu64 " %s", (uint64_t)value, units[step]);
    else
        write_scaled(out, value, units[step]);
    return out->text;
}

const char *format_time(format_text *out, double ns)
{
    if (ns < 999.5)
        snprintf(out->text, sizeof(out->text), "%.0f ns", ns);
    else if (ns < 999.5e3)
        write_scaled(out, ns / 1e3, "µs");
    else if (ns < 999.5e6)
        write_scaled(out, ns / 1e6, "ms");
    else
        write_scaled(out, ns / 1e9, "s");
    return out->text;
}

int format_columns(const char *text)
{
    int columns = 0;
    for (; *text; text++)
        columns += ((unsigned char)*text & 0xC0) != 0x80; /* not a UTF-8 continuation byte */
    return columns;
}
