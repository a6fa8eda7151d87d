/*
 * io_uring flags and structures newer than liburing 2.3 (Debian 12), by number. Whether the running
 * kernel has them is found out at run time (uring.c).
 */
#ifndef RINGWS_RING_COMPAT_H
#define RINGWS_RING_COMPAT_H

#include <stdint.h>

/* IORING_REGISTER_PBUF_RING; its `flags` were padding before 6.4. */
struct rws__buf_reg {
    uint64_t ring_addr;
    uint32_t ring_entries;
    uint16_t bgid;
    uint16_t flags;
    uint64_t resv[3];
};

#define RWS__REGISTER_PBUF_RING 22u
#define RWS__PBUF_RING_INC      2u /* IOU_PBUF_RING_INC, 6.12 */

/* IORING_OP_URING_CMD on sockets, 6.7. */
#define RWS__SOCKET_SIOCOUTQ   1u /* SOCKET_URING_OP_SIOCOUTQ */
#define RWS__SOCKET_GETSOCKOPT 2u /* SOCKET_URING_OP_GETSOCKOPT */

/* IORING_OP_SEND_ZC with a report of what became of it, 6.2 and stable releases of 6.1. The report
 * is the notification's res. */
#define RWS__SEND_ZC_REPORT_USAGE  (1u << 3)  /* IORING_SEND_ZC_REPORT_USAGE */
#define RWS__NOTIF_USAGE_ZC_COPIED (1u << 31) /* IORING_NOTIF_USAGE_ZC_COPIED */

/* A completion with an incremental buffer that has room left, 6.12. */
#define RWS__CQE_F_BUF_MORE (1u << 4) /* IORING_CQE_F_BUF_MORE */

#ifndef SO_PEERNAME
#define SO_PEERNAME 28
#endif

#endif
