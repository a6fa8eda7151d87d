/* A C++20 program can use the initialisers of the public headers. */
#include "ringws/ringws.h"

rws_server_options server_options = RWS_SERVER_OPTIONS_DEFAULT;
rws_client_options client_options = RWS_CLIENT_OPTIONS_DEFAULT;
rws_handler handler = RWS_HANDLER_DEFAULT;
