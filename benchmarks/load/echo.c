/*
 * Requests and replies: `load echo`.
 *
 * Closed loop: each client keeps `depth` messages in flight; k replies that arrive together are followed by k messages
 * in one write. Open loop (--rate): messages fall due on a schedule whatever the server does, and latency counts from
 * when they were due, so a server that stalls pays for every message that had to wait (no coordinated omission).
 *
 * A client's messages stand in a ring of slots, laid out twice in a row, so that any stretch of the ring is contiguous
 * and goes out in one write. Without --check all messages are alike and all clients share one ring.
 */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/timerfd.h>

/* Open loop: messages sent and unanswered per client; what is due beyond stays with us. */
#define OPEN_LOOP_WINDOW 256
/* Open loop: the last stretch before a message is due, which is waited for by polling. */
#define POLLED (100 * UINT64_C(1000))
#define DIGITS 12

struct stream {
    uint64_t due;           /* messages that may go out; closed loop: no limit but the window */
    uint64_t queued;        /* messages that have had a slot */
    uint64_t answered;      /* replies */
    uint64_t written;       /* bytes */
    uint64_t received;      /* bytes, kept for --check */
    size_t column;          /* how much of --expect the present line has shown */
    nanoseconds *queued_at; /* per slot; closed loop only */
    char *slots;
};

static struct {
    const struct options *options;
    struct connection *connections;
    struct stream *streams;
    uint64_t window; /* messages in flight per client */
    uint64_t mask;   /* slots of the ring, a power of two, less one */
    size_t length;   /* bytes of a message */
    /* open loop */
    nanoseconds began;
    double interval;    /* nanoseconds */
    uint64_t scheduled; /* messages over all clients that have fallen due */
    int timer;
} run;

static char *slot(const struct stream *stream, uint64_t message) {
    return stream->slots + (message & run.mask) * run.length;
}

/* Where byte number `position` of the client's whole output stands in its ring. */
static char *stretch(const struct stream *stream, uint64_t position) {
    return slot(stream, position / run.length) + position % run.length;
}

static nanoseconds due_at(uint64_t number) { return run.began + (nanoseconds)((double)number * run.interval); }

static nanoseconds latency_from(const struct stream *stream, uint64_t message) {
    if (stream->queued_at) return stream->queued_at[message & run.mask];
    return due_at(message * run.options->clients + (uint64_t)(stream - run.streams));
}

/* sending */

static void write_digits(char *text, uint64_t number) {
    for (int i = DIGITS; i-- > 0; number /= 10) text[i] = (char)('0' + number % 10);
}

static void queue_message(struct stream *stream, nanoseconds now) {
    if (stream->queued_at) stream->queued_at[stream->queued & run.mask] = now;
    if (run.options->check) {
        char *text = slot(stream, stream->queued);
        write_digits(text + 8, stream->queued);
        write_digits(text + 8 + (run.mask + 1) * run.length, stream->queued);
    }
    stream->queued++;
}

static void send_due(struct stream *stream, nanoseconds now) {
    uint64_t limit = stream->answered + run.window;
    if (limit > stream->due) limit = stream->due;
    while (stream->queued < limit) queue_message(stream, now);
    size_t left = (size_t)(stream->queued * run.length - stream->written);
    if (left == 0) return;
    struct connection *connection = &run.connections[stream - run.streams];
    stream->written += connection_write(connection, stretch(stream, stream->written), left);
}

/* receiving */

/* What comes back must be, byte by byte, what was sent. */
static uint64_t check_replies(struct stream *stream, const char *data, size_t count) {
    uint64_t before = stream->received / run.length;
    if (stream->received + count > stream->written || memcmp(stretch(stream, stream->received), data, count) != 0)
        die("client %td: reply %" PRIu64 " or a later one is not what was sent", stream - run.streams, before);
    stream->received += count;
    return stream->received / run.length - before;
}

static void check_beginning(struct stream *stream, const char *data, size_t count) {
    struct bytes expect = run.options->expect;
    size_t left = expect.length - stream->column;
    if (count > left) count = left;
    if (memcmp(data, expect.data + stream->column, count) != 0)
        die("client %td: a reply does not begin with %s but with %.*s", stream - run.streams, expect.data, (int)count,
            data);
    stream->column += count;
}

static uint64_t count_replies(struct stream *stream, const char *data, size_t count) {
    const char *end = data + count;
    uint64_t lines = 0;
    while (data < end) {
        const char *newline = memchr(data, '\n', (size_t)(end - data));
        const char *line_end = newline ? newline : end;
        if (run.options->expect.data) check_beginning(stream, data, (size_t)(line_end - data));
        if (newline == NULL) break;
        if (stream->column < run.options->expect.length)
            die("client %td: a reply does not begin with %s", stream - run.streams, run.options->expect.data);
        stream->column = 0;
        lines++;
        data = newline + 1;
    }
    return lines;
}

static void record_replies(struct stream *stream, uint64_t count, nanoseconds now) {
    uint64_t message = stream->answered, end = message + count;
    if (end > stream->queued) die("client %td: more reply lines than messages", stream - run.streams);
    while (message < end) {
        nanoseconds from = latency_from(stream, message);
        uint64_t alike = 1;
        /* Messages of one batch have one time, so they are recorded in one go. */
        while (message + alike < end && latency_from(stream, message + alike) == from) alike++;
        measurement_record(now > from ? now - from : 0, alike);
        message += alike;
    }
    stream->answered = end;
}

static void receive(struct stream *stream, nanoseconds now) {
    static char buffer[READ_SIZE];
    struct connection *connection = &run.connections[stream - run.streams];
    do {
        size_t count = connection_read(connection, buffer, sizeof buffer);
        if (count == 0) return;
        uint64_t replies =
            run.options->check ? check_replies(stream, buffer, count) : count_replies(stream, buffer, count);
        record_replies(stream, replies, now);
    } while (connection_has_more(connection));
}

/* the schedule of the open loop */

/* A timer that is set and fires costs two exits to the hypervisor in a virtual machine, and comes some ten microseconds
 * late. So what is due soon is waited for by polling; the time spent so is not counted as ours. */

static bool is_due_soon(nanoseconds now) { return due_at(run.scheduled) < now + POLLED; }

static void set_timer(void) {
    static uint64_t set_for = UINT64_MAX;
    if (set_for == run.scheduled) return;
    set_for = run.scheduled;
    nanoseconds at = due_at(run.scheduled) - POLLED;
    struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(at / SECOND), .tv_nsec = (long)(at % SECOND)}};
    /* Edge-triggered and absolute: it is set again and never needs reading. */
    if (timerfd_settime(run.timer, TFD_TIMER_ABSTIME, &spec, NULL) != 0) die("timerfd_settime: %s", strerror(errno));
}

static uint64_t send_scheduled(nanoseconds now) {
    uint64_t clients = run.options->clients, first = run.scheduled;
    for (; due_at(run.scheduled) <= now; run.scheduled++) run.streams[run.scheduled % clients].due++;
    uint64_t count = run.scheduled - first;
    for (uint64_t i = 0; i < count && i < clients; i++) send_due(&run.streams[(first + i) % clients], now);
    return count;
}

static void begin_schedule(nanoseconds now) {
    run.began = now;
    run.interval = 1e9 / run.options->rate;
    run.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (run.timer < 0) die("timerfd_create: %s", strerror(errno));
    watch_descriptor(run.timer);
}

/* the run */

static void prepare_streams(struct bytes message) {
    const struct options *options = run.options;
    run.window = options->rate > 0 ? OPEN_LOOP_WINDOW : options->depth;
    run.length = message.length;
    uint64_t slots = 1;
    while (slots < run.window) slots *= 2;
    run.mask = slots - 1;
    run.streams = allocate(options->clients, sizeof *run.streams);
    char *ring = NULL;
    for (uint64_t client = 0; client < options->clients; client++) {
        struct stream *stream = &run.streams[client];
        if (ring == NULL || options->check) {
            ring = allocate(2 * slots, run.length);
            for (uint64_t i = 0; i < 2 * slots; i++) memcpy(ring + i * run.length, message.data, run.length);
        }
        stream->slots = ring;
        if (options->check)
            for (uint64_t i = 0; i < 2 * slots; i++) {
                char number[DIGITS];
                write_digits(number, client);
                memcpy(ring + i * run.length, number + DIGITS - 7, 7);
                ring[i * run.length + 7] = ' ';
            }
        if (options->rate == 0) {
            stream->queued_at = allocate(slots, sizeof *stream->queued_at);
            stream->due = UINT64_MAX;
        }
    }
}

static uint64_t in_flight(void) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < run.options->clients; i++) count += run.streams[i].queued - run.streams[i].answered;
    return count;
}

static int serve_round(nanoseconds until, nanoseconds *now) {
    static struct epoll_event events[ROUND];
    int happened = wait_for_events(events, until, now);
    for (int i = 0; i < happened; i++) {
        struct connection *connection = events[i].data.ptr;
        if (connection == NULL) continue; /* the timer */
        struct stream *stream = &run.streams[connection->index];
        if (events[i].events & ~(uint32_t)EPOLLOUT) receive(stream, *now);
        send_due(stream, *now);
    }
    return happened;
}

static void serve_scheduled_round(nanoseconds until, nanoseconds *now) {
    nanoseconds before = *now;
    bool polling = is_due_soon(before);
    if (!polling) set_timer();
    int happened = serve_round(polling ? before : until, now);
    if (send_scheduled(*now) == 0 && happened == 0 && polling) measurement_waited(*now - before);
}

/* Sends no more, but takes what is owed: the server sees an orderly end, and a reply that was lost comes out. */
static void drain(nanoseconds now) {
    bool open_loop = run.options->rate > 0;
    for (uint64_t i = 0; i < run.options->clients; i++) run.streams[i].due = run.streams[i].queued;
    /* An overloaded server owes an open loop too much to wait for. */
    nanoseconds deadline = now + (open_loop ? SECOND : PATIENCE);
    while (in_flight() > 0 && now < deadline) serve_round(now + 10 * MILLISECOND, &now);
    if (!open_loop && in_flight() > 0)
        die("%" PRIu64 " replies had not come %.0f seconds after the end", in_flight(), (double)PATIENCE / 1e9);
}

static void record_unanswered(nanoseconds now) {
    for (uint64_t i = 0; i < run.options->clients; i++) {
        struct stream *stream = &run.streams[i];
        for (uint64_t message = stream->answered; message < stream->due; message++) {
            nanoseconds from = latency_from(stream, message);
            if (from < now) measurement_record_unanswered(now - from);
        }
    }
}

void run_echo(const struct options *options) {
    struct bytes message = options->request;
    if (message.data == NULL) message = line_of(options->size);
    run.options = options;
    run.connections = establish((uint32_t)options->clients, &options->beginning, NULL, message);
    prepare_streams(message);
    nanoseconds now = clock_now();
    nanoseconds start = now + (nanoseconds)(options->warmup * 1e9);
    nanoseconds end = start + (nanoseconds)(options->seconds * 1e9);
    if (options->rate > 0)
        begin_schedule(now);
    else
        for (uint64_t i = 0; i < options->clients; i++) send_due(&run.streams[i], now);
    while (now < end) {
        nanoseconds until = measurement_started() ? end : start;
        if (options->rate > 0)
            serve_scheduled_round(until, &now);
        else
            serve_round(until, &now);
        if (!measurement_started() && now >= start) measurement_start(now);
    }
    measurement_stop(now);
    if (options->rate > 0) record_unanswered(now);
    drain(now);
    connections_close(run.connections, (uint32_t)options->clients);
    measurement_print("messages", options->rate > 0);
}
