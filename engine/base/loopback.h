/* Addresses that no network card is behind. */
#ifndef RINGWS_BASE_LOOPBACK_H
#define RINGWS_BASE_LOOPBACK_H

#include <stdbool.h>
#include <sys/socket.h>

/* 127.0.0.0/8, ::1, ::ffff:127.0.0.0/104 and unix sockets. False for AF_UNSPEC: nobody knows. */
bool rws__is_loopback(const struct sockaddr *address);

#endif
