/* What a failed io_uring_setup means: every cause is told apart, and the sentence says the way out.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>

#include "engine/base/features.h"
#include "engine/server/probe.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const struct judge_case {
    const char *name;
    rws__probe_facts facts; /* error, version, sysctl, seccomp */
    int status;
    const char *blocked_by, *says;
} judge_cases[] = {
    {"all is well", {0, 6, 1, -1, 0}, 0, "", "works"},
    {"all is well, newer", {0, 7, 0, 0, 2}, 0, "", "works"},
    {"works, but too old", {0, 6, 0, -1, 0}, RWS_E_KERNEL_OLD, "version", "6.0"},
    {"too old", {0, 5, 19, -1, 0}, RWS_E_KERNEL_OLD, "version", "6.1 or later"},
    {"too old for its flags", {-EINVAL, 5, 10, -1, 0}, RWS_E_KERNEL_OLD, "version", "5.10"},
    {"too old for io_uring", {-ENOSYS, 4, 19, -1, 0}, RWS_E_KERNEL_OLD, "version", "4.19"},
    {"switched off", {-EPERM, 6, 6, 2, 0}, RWS_E_RING_BLOCKED, "sysctl", "io_uring_disabled = 2"},
    {"switched off, in a container",
     {-EPERM, 6, 6, 2, 2},
     RWS_E_RING_BLOCKED,
     "sysctl",
     "io_uring_disabled = 2"},
    {"for a group only", {-EPERM, 6, 6, 1, 0}, RWS_E_RING_BLOCKED, "sysctl", "io_uring_group"},
    {"for a group only, another error",
     {-EACCES, 6, 6, 1, 0},
     RWS_E_RING_BLOCKED,
     "other",
     "security module"},
    {"seccomp", {-EPERM, 6, 6, 0, 2}, RWS_E_RING_BLOCKED, "seccomp", "io_uring_setup"},
    {"seccomp, no sysctl", {-EPERM, 6, 1, -1, 2}, RWS_E_RING_BLOCKED, "seccomp", "docker"},
    {"seccomp with another answer",
     {-ENOSYS, 6, 6, 0, 2},
     RWS_E_RING_BLOCKED,
     "seccomp",
     "seccomp"},
    {"not built in", {-ENOSYS, 6, 6, -1, 0}, RWS_E_RING_BLOCKED, "missing", "CONFIG_IO_URING"},
    {"a security module", {-EPERM, 6, 6, 0, 0}, RWS_E_RING_BLOCKED, "other", "security module"},
    {"a security module, EACCES",
     {-EACCES, 6, 6, 0, 0},
     RWS_E_RING_BLOCKED,
     "other",
     "administrator"},
    {"locked memory", {-ENOMEM, 6, 1, -1, 0}, -ENOMEM, "memlock", "ulimit -l"},
    {"descriptors", {-EMFILE, 6, 6, 0, 0}, -EMFILE, "other", ""},
    {"invalid on a new kernel", {-EINVAL, 6, 6, 0, 0}, -EINVAL, "other", ""},
};

Test(engine_probe, tells_every_cause_apart)
{
    for (size_t i = 0; i < COUNT(judge_cases); i++) {
        const struct judge_case *row = &judge_cases[i];
        rws_probe probe = {.size = sizeof probe};
        int status = rws__probe_judge(&row->facts, &probe);
        cr_expect_eq(status, row->status, "%s: %d", row->name, status);
        cr_expect_eq(probe.status, row->status, "%s", row->name);
        cr_expect_str_eq(probe.blocked_by, row->blocked_by, "%s: %s", row->name, probe.blocked_by);
        cr_expect_not_null(strstr(probe.text, row->says), "%s: %s", row->name, probe.text);
        cr_expect_gt(strlen(probe.text), 10, "%s: a sentence", row->name);
        cr_expect_lt(strlen(probe.text), sizeof probe.text - 1, "%s: it is cut", row->name);
    }
}

Test(engine_probe, names_every_feature_and_no_other)
{
    const char *name, *text, *unknown;
    uint32_t all = 0, bit;
    size_t count = 0, len;
    for (; rws_feature_at(count, &name, &text); count++) {
        cr_expect_gt(strlen(text), 10);
        cr_assert_eq(rws__features_parse(&bit, name, &unknown, &len), 0, "%s", name);
        cr_expect_eq(all & bit, 0, "%s", name);
        all |= bit;
    }
    cr_expect_eq(all, RWS__FEATURE_ALL);
    cr_expect_not(rws_feature_at(SIZE_MAX, &name, &text));
    cr_assert_eq(rws__features_parse(&bit, "all", &unknown, &len), 0);
    cr_expect_eq(bit, RWS__FEATURE_ALL);
}

Test(engine_probe, reads_and_writes_lists_of_features)
{
    static const struct {
        const char *list, *unknown;
        uint32_t bits;
    } rows[] = {
        {NULL, NULL, 0},
        {"", NULL, 0},
        {"send_zc", NULL, RWS__FEATURE_SEND_ZC},
        {"send_zc,multishot_recv", NULL, RWS__FEATURE_SEND_ZC | RWS__FEATURE_MULTISHOT_RECV},
        {"all,send_zc", NULL, RWS__FEATURE_ALL},
        {"send_zc,", NULL, RWS__FEATURE_SEND_ZC},
        {"send_z", "send_z", 0},
        {"send_zc,nonsense,multishot_recv", "nonsense", 0},
        {",", "", 0},
        {" send_zc", " send_zc", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *unknown = NULL;
        size_t len = 0;
        uint32_t bits = 0;
        int res = rws__features_parse(&bits, rows[i].list, &unknown, &len);
        cr_expect_eq(res, rows[i].unknown != NULL ? RWS_E_OPTION : 0, "row %zu", i);
        if (rows[i].unknown == NULL)
            cr_expect_eq(bits, rows[i].bits, "row %zu", i);
        else
            cr_expect(strlen(rows[i].unknown) == len && memcmp(unknown, rows[i].unknown, len) == 0);
    }
    for (uint32_t bits = 0; bits <= RWS__FEATURE_ALL; bits++) {
        char list[256];
        const char *unknown;
        size_t len;
        uint32_t again;
        rws__features_write(bits, list, sizeof list);
        cr_assert_eq(rws__features_parse(&again, list, &unknown, &len), 0, "%s", list);
        cr_assert_eq(again, bits, "%s", list);
    }
}

/* A program that was compiled with a smaller structure gets no more than that. */
Test(engine_probe, writes_no_more_than_the_callers_structure)
{
    union {
        rws_probe probe;
        unsigned char bytes[sizeof(rws_probe)];
    } small;
    memset(&small, 0xee, sizeof small);
    small.probe.size = offsetof(rws_probe, text);
    rws_probe_kernel(&small.probe);
    for (size_t i = offsetof(rws_probe, text); i < sizeof small; i++)
        cr_assert_eq(small.bytes[i], 0xee, "byte %zu was written", i);
    cr_assert_eq(small.probe.size, offsetof(rws_probe, text));
}
