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
    size_t matched;             /* bytes of the end of its answer that the answer ends with so far */
    nanoseconds established_at; /* TLS included; 0: not yet */
};

static const char *const stage_names[] = {"connect", "the TLS handshake", "the prelude's reply", "the first reply"};
static const struct bytes newline = {"\n", 1};

static struct {
    struct connection *connections;
    struct opening *openings;
    const struct beginning *beginning, *last;
    struct bytes primer;
    uint32_t count;
    uint32_t ready;
} all;

static const struct beginning *beginning_of(uint32_t index) {
    return all.last && index + 1 == all.count ? all.last : all.beginning;
}

static struct bytes text_of(const struct connection *connection, enum stage stage) {
    return stage == PRELUDE ? beginning_of(connection->index)->prelude : all.primer;
}

static struct bytes end_of(const struct connection *connection, enum stage stage) {
    return stage == PRELUDE ? beginning_of(connection->index)->end : newline;
}

/* On to the next stage that has something to send. */
static void enter_stage(struct connection *connection, enum stage stage) {
    struct opening *opening = &all.openings[connection->index];
    while (stage < READY && text_of(connection, stage).data == NULL) stage++;
    opening->stage = stage;
    opening->sent = opening->matched = 0;
    connection_watch(connection, stage == READY ? EPOLLIN : EPOLLIN | EPOLLOUT);
    if (stage == READY) all.ready++;
}

static void send_text(struct connection *connection) {
    struct opening *opening = &all.openings[connection->index];
    struct bytes text = text_of(connection, opening->stage);
    if (opening->sent < text.length)
        opening->sent += connection_write(connection, text.data + opening->sent, text.length - opening->sent);
    else
        connection_watch(connection, EPOLLIN);
}

/* How much of `end` has been seen after one more byte, if it was `matched` before. */
static size_t match(struct bytes end, size_t matched, char byte) {
    while (matched > 0 && end.data[matched] != byte) {
        /* Fall back to the longest beginning of it that what was seen ends with. */
        size_t shorter = matched - 1;
        while (memcmp(end.data, end.data + matched - shorter, shorter) != 0) shorter--;
        matched = shorter;
    }
    return matched + (end.data[matched] == byte);
}

static void read_reply(struct connection *connection) {
    static char buffer[READ_SIZE];
    struct opening *opening = &all.openings[connection->index];
    do {
        size_t count = connection_read(connection, buffer, sizeof buffer);
        if (count == 0) return;
        if (opening->stage == READY) die("connection %u: more than was awaited", connection->index);
        struct bytes end = end_of(connection, opening->stage);
        size_t read = 0;
        while (read < count && opening->matched < end.length)
            opening->matched = match(end, opening->matched, buffer[read++]);
        if (opening->matched < end.length) continue;
        if (read < count) die("connection %u: more than one answer to one message", connection->index);
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
    bool awaiting = opening->stage == READY || opening->sent == text_of(connection, opening->stage).length;
    if ((events & ~(uint32_t)EPOLLOUT) && awaiting) read_reply(connection);
}

/* Whether the server has surely, or by now, accepted it. */
static bool is_settled(uint32_t index, nanoseconds now) {
    const struct opening *opening = &all.openings[index];
    bool answered = opening->stage == READY && (all.primer.data || beginning_of(index)->prelude.data);
    return answered || (opening->established_at && now - opening->established_at >= GRACE);
}

_Noreturn static void die_waiting(uint32_t opened) {
    for (uint32_t i = 0; i < opened; i++)
        if (all.openings[i].stage != READY)
            die("connection %u waits in vain for %s", i, stage_names[all.openings[i].stage]);
    die("no connection");
}

struct connection *establish(uint32_t count, const struct beginning *beginning, const struct beginning *last,
                             struct bytes primer) {
    static struct epoll_event events[ROUND];
    all.connections = allocate(count, sizeof *all.connections);
    all.openings = allocate(count, sizeof *all.openings);
    all.beginning = beginning;
    all.last = last;
    all.primer = primer;
    all.count = count;
    uint32_t opened = 0, settled = 0;
    nanoseconds now = clock_now(), progress_at = now;
    while (settled < count || all.ready < count) {
        for (; opened < count && opened - settled < WINDOW; opened++) {
            connection_open(&all.connections[opened], opened, beginning_of(opened)->port);
            connection_watch(&all.connections[opened], EPOLLOUT);
        }
        int happened = wait_for_events(events, now + MILLISECOND, &now);
        for (int i = 0; i < happened; i++) go_on(events[i].data.ptr, events[i].events, now);
        while (settled < opened && is_settled(settled, now)) settled++;
        if (happened > 0) progress_at = now;
        if (now - progress_at > LONGEST_SILENCE) die_waiting(opened);
    }
    return all.connections;
}
