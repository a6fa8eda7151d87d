/* A constant where it is used. */
#include "ringws/ringws.h"

int greet(rws_conn *conn, const rws_message *message, void *user);
int greet(rws_conn *conn, const rws_message *message, void *user)
{
    (void)message, (void)user;
    int res = rws_conn_send_message(conn, RWS_MESSAGE_TEXT("hello"));
    return res != 0 ? res : rws_conn_send_message(conn, RWS_MESSAGE_BINARY("\1\0\2"));
}
