/*
 * Connections that cost memory only: `load idle`. The harness weighs the server while they are held.
 */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static char ignored[4096];

static void hold_until_stdin_ends(void) {
    while (read(STDIN_FILENO, ignored, sizeof ignored) > 0) continue;
}

void run_idle(const struct options *options) {
    static struct epoll_event events[ROUND];
    struct bytes message = options->request;
    if (message.data == NULL) message = line_of(options->size);
    struct connection *connections = establish((uint32_t)options->clients, &options->beginning, NULL, message);
    printf("{\"clients\": %" PRIu64 "}\n", options->clients);
    fflush(stdout);
    hold_until_stdin_ends();
    /* Had the server closed some of them, its weight would be that of fewer. */
    nanoseconds now = clock_now();
    int happened = wait_for_events(events, now, &now);
    for (int i = 0; i < happened; i++) connection_read(events[i].data.ptr, ignored, sizeof ignored);
    connections_close(connections, (uint32_t)options->clients);
}
