#include "support/outside.h"

#include "engine/simulated/kernel.h"

#define NO_MORE_THAN_US 1000
/* Of 65536. */
#define OFTEN  16384
#define SELDOM 2048

bool outside_is_simulated(void)
{
    return true;
}

/* What a kernel may do and the engine has to bear without a difference to anybody. */
static void add_faults(rws__sim_options *options)
{
    static const rws__sim_fault often[] = {
        RWS__SIM_DELAY,     RWS__SIM_SHORT_SEND,   RWS__SIM_SHORT_RECV,
        RWS__SIM_REORDER,   RWS__SIM_LATE,         RWS__SIM_ZC_LATE,
        RWS__SIM_ZC_COPIED, RWS__SIM_CANCEL_LOSES, RWS__SIM_SLOW_TURN,
    };
    static const rws__sim_fault seldom[] = {
        RWS__SIM_NO_BUFFER,   RWS__SIM_MULTISHOT_END, RWS__SIM_SQ_FULL,
        RWS__SIM_SUBMIT_PART, RWS__SIM_CQ_FULL,       RWS__SIM_ZC_REFUSED,
    };
    for (size_t i = 0; i < sizeof often / sizeof often[0]; i++)
        options->chance[often[i]] = OFTEN;
    for (size_t i = 0; i < sizeof seldom / sizeof seldom[0]; i++)
        options->chance[seldom[i]] = SELDOM;
    options->delay_us_max = options->late_us_max = options->slow_us_max = NO_MORE_THAN_US;
}

void outside_start(uint32_t features, uint64_t seed, bool faults)
{
    rws__sim_options options = rws__sim_defaults;
    options.features = features;
    options.seed = seed;
    options.poison = true;
    if (faults) add_faults(&options);
    rws__sim_start(&options);
}

void outside_end(void)
{
    rws__sim_end();
}

void outside_pass_us(uint64_t us)
{
    rws__sim_advance_to(rws__sim_now_us() + us);
}

int outside_connect(const struct sockaddr *address, socklen_t len, int recv_buffer_bytes)
{
    rws__sim_options *settings = rws__sim_settings();
    size_t before = settings->recv_buffer_bytes;
    if (recv_buffer_bytes > 0) settings->recv_buffer_bytes = (size_t)recv_buffer_bytes;
    int fd = rws__sim_connect(address, len);
    settings->recv_buffer_bytes = before;
    return fd;
}

int outside_connected(int fd)
{
    return rws__sim_connected(fd);
}

void outside_adopt(int fd)
{
    (void)fd;
}

ssize_t outside_read(int fd, void *data, size_t len)
{
    return rws__sim_read(fd, data, len);
}

ssize_t outside_write(int fd, const void *data, size_t len)
{
    return rws__sim_write(fd, data, len);
}

void outside_shutdown(int fd)
{
    rws__sim_shutdown(fd);
}

void outside_reset(int fd)
{
    rws__sim_reset(fd);
}

void outside_close(int fd)
{
    rws__socket_close(fd);
}
