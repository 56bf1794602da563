/*
 * Whole lives of connections: `load connect`.
 *
 * A connection ends with a reset, since an orderly close would leave our port in TIME_WAIT for a minute and the 28,000
 * ephemeral ports would be gone in seconds.
 */
#include "load.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct life {
    nanoseconds since;
    size_t sent;
};

static struct {
    uint64_t port;
    size_t size;
    const char *line;
    struct connection *connections;
    struct life *lives;
    nanoseconds progress_at;
} run;

static void send_line(struct connection *connection) {
    struct life *life = &run.lives[connection->index];
    if (life->sent < run.size) life->sent += connection_write(connection, run.line + life->sent, run.size - life->sent);
}

static void begin_life(uint32_t index, nanoseconds now) {
    run.lives[index] = (struct life){.since = now};
    connection_open(&run.connections[index], index, run.port);
    /* On loopback the handshake is over when connect() returns, so this seldom has to wait to be writable. */
    send_line(&run.connections[index]);
}

static void end_life(struct connection *connection) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(connection->fd);
}

static bool read_reply(struct connection *connection) {
    static char buffer[READ_SIZE];
    size_t count = connection_read(connection, buffer, sizeof buffer);
    if (count == 0) return false;
    const char *newline = memchr(buffer, '\n', count);
    if (newline && newline + 1 < buffer + count) die("more than one line in answer to one message");
    return newline != NULL;
}

static void go_on(struct connection *connection, uint32_t events, nanoseconds now) {
    if (events & EPOLLOUT) send_line(connection);
    if (!(events & ~(uint32_t)EPOLLOUT) || !read_reply(connection)) return;
    uint32_t index = connection->index;
    measurement_record(now - run.lives[index].since, 1);
    run.progress_at = now;
    end_life(connection);
    begin_life(index, now);
}

void run_connect(const struct options *options) {
    static struct epoll_event events[ROUND];
    run.size = (size_t)options->size;
    run.line = line_of(run.size).data;
    run.port = options->beginning.port;
    run.connections = allocate(options->clients, sizeof *run.connections);
    run.lives = allocate(options->clients, sizeof *run.lives);
    nanoseconds now = clock_now();
    nanoseconds start = now + (nanoseconds)(options->warmup * 1e9);
    nanoseconds end = start + (nanoseconds)(options->seconds * 1e9);
    run.progress_at = now;
    for (uint32_t i = 0; i < options->clients; i++) begin_life(i, now);
    while (now < end) {
        int happened = wait_for_events(events, measurement_started() ? end : start, &now);
        for (int i = 0; i < happened; i++) go_on(events[i].data.ptr, events[i].events, now);
        if (!measurement_started() && now >= start) measurement_start(now);
        if (now - run.progress_at > PATIENCE) die("no reply for %.0f seconds", (double)PATIENCE / 1e9);
    }
    measurement_stop(now);
    measurement_print("connections", false);
}
