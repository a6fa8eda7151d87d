/*
 * The live tests with a filter: with RINGWS_TEST_FILTER=toy in the environment each server and
 * client of a test gets the toy filter, and raw clients speak it too (raw_client.h). ctest runs
 * such variants under the names <test>_filtered.
 */
#ifndef RINGWS_TESTS_SUPPORT_ENGINE_FILTER_H
#define RINGWS_TESTS_SUPPORT_ENGINE_FILTER_H

#include "ringws/ringws.h"

/* Between create and start. Nothing without the variable. */
void engine_filter_server(rws_server *server);
void engine_filter_client(rws_client *client);

#endif
