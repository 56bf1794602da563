/*
 * Opening many connections, without overrunning the server's backlog.
 *
 * A SYN that meets a full backlog is dropped and sent again a second later, so a thousand connects at once would take
 * many seconds with a server that listens with a backlog of 50 (Twisted's default; asyncio's is 100). TCP does not
 * tell when a server has accepted; a reply does. So no more than a window's worth of connections are open and not
 * answered. A server that is slow with its replies should not make this last for ever, hence the grace.
 */
#include "load.h"

#include <string.h>

#define WINDOW 32
/* After this time a connection is taken for accepted, reply or not. */
#define GRACE (20 * MILLISECOND)
/* A server may well think for a while about a message. */
#define LONGEST_SILENCE (60 * SECOND)

enum stage { CONNECTING, HANDSHAKE, PRELUDE, PRIMER, READY };

struct opening {
    enum stage stage;
    size_t sent;                /* bytes, of the prelude or primer */
    nanoseconds established_at; /* TLS included; 0: not yet */
};

static const char *const stage_names[] = {"connect", "the TLS handshake", "the prelude's reply", "the first reply"};

static struct {
    struct connection *connections;
    struct opening *openings;
    struct bytes texts[2]; /* of PRELUDE and PRIMER */
    uint32_t ready;
} all;

/* On to the next stage that has something to send. */
static void enter_stage(struct connection *connection, enum stage stage) {
    struct opening *opening = &all.openings[connection->index];
    while (stage < READY && all.texts[stage - PRELUDE].data == NULL) stage++;
    opening->stage = stage;
    opening->sent = 0;
    connection_watch(connection, stage == READY ? EPOLLIN : EPOLLIN | EPOLLOUT);
    if (stage == READY) all.ready++;
}

static void send_text(struct connection *connection) {
    struct opening *opening = &all.openings[connection->index];
    struct bytes text = all.texts[opening->stage - PRELUDE];
    if (opening->sent < text.length)
        opening->sent += connection_write(connection, text.data + opening->sent, text.length - opening->sent);
    else
        connection_watch(connection, EPOLLIN);
}

static void read_reply(struct connection *connection) {
    static char buffer[READ_SIZE];
    struct opening *opening = &all.openings[connection->index];
    do {
        size_t count = connection_read(connection, buffer, sizeof buffer);
        if (count == 0) return;
        const char *newline = memchr(buffer, '\n', count);
        if (newline == NULL) continue;
        if (newline + 1 < buffer + count || opening->stage == READY)
            die("connection %u: more than one line in answer to one message", connection->index);
        enter_stage(connection, opening->stage + 1);
    } while (connection_has_more(connection));
}

static void go_on(struct connection *connection, uint32_t events, nanoseconds now) {
    struct opening *opening = &all.openings[connection->index];
    if (opening->stage == CONNECTING && connection_is_open(connection)) opening->stage = HANDSHAKE;
    if (opening->stage == HANDSHAKE && connection_handshake(connection)) {
        opening->established_at = now;
        enter_stage(connection, PRELUDE);
        return;
    }
    if (opening->stage < PRELUDE) return;
    /* A greeting may be here before we have said anything; it counts as the reply, but not in place of the prelude. */
    if ((events & EPOLLOUT) && opening->stage < READY) send_text(connection);
    bool awaiting = opening->stage == READY || opening->sent == all.texts[opening->stage - PRELUDE].length;
    if ((events & ~(uint32_t)EPOLLOUT) && awaiting) read_reply(connection);
}

/* Whether the server has surely, or by now, accepted it. */
static bool is_settled(const struct opening *opening, nanoseconds now) {
    bool answered = opening->stage == READY && all.texts[1].data != NULL;
    return answered || (opening->established_at && now - opening->established_at >= GRACE);
}

_Noreturn static void die_waiting(uint32_t opened) {
    for (uint32_t i = 0; i < opened; i++)
        if (all.openings[i].stage != READY)
            die("connection %u waits in vain for %s", i, stage_names[all.openings[i].stage]);
    die("no connection");
}

struct connection *establish(uint32_t count, const struct options *options, struct bytes primer) {
    static struct epoll_event events[ROUND];
    all.connections = allocate(count, sizeof *all.connections);
    all.openings = allocate(count, sizeof *all.openings);
    all.texts[0] = options->prelude;
    all.texts[1] = primer;
    uint32_t opened = 0, settled = 0;
    nanoseconds now = clock_now(), progress_at = now;
    while (settled < count || all.ready < count) {
        for (; opened < count && opened - settled < WINDOW; opened++) {
            connection_open(&all.connections[opened], opened);
            connection_watch(&all.connections[opened], EPOLLOUT);
        }
        int happened = wait_for_events(events, now + MILLISECOND, &now);
        for (int i = 0; i < happened; i++) go_on(events[i].data.ptr, events[i].events, now);
        while (settled < opened && is_settled(&all.openings[settled], now)) settled++;
        if (happened > 0) progress_at = now;
        if (now - progress_at > LONGEST_SILENCE) die_waiting(opened);
    }
    return all.connections;
}
