/* A C++20 program can use the initialisers of the public headers. */
#include "ringws/ringws.h"

rws_runtime_options runtime_options = RWS_RUNTIME_OPTIONS_DEFAULT;
rws_endpoint_options endpoint_options = RWS_ENDPOINT_OPTIONS_DEFAULT;
rws_listener_options listener_options = RWS_LISTENER_OPTIONS_DEFAULT;
rws_dial_options dial_options = RWS_DIAL_OPTIONS_DEFAULT;
rws_handler handler = RWS_HANDLER_DEFAULT;
