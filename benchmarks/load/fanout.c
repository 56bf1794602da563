/*
 * One to all: `load fanout`. The last connection publishes, all others only read.
 *
 * All messages are alike, so what a subscriber has received is known by its number of bytes, and checking it is one
 * comparison per read. A server need not speak in lines: what is sent for a message, and what arrives for it, are bytes
 * that are given.
 *
 * Closed loop: two bursts are in flight, so that the server has the next one before the last subscriber has read the
 * one before it. Open loop (--rate): bursts fall due on a schedule, and their latency counts from when they were due.
 */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define IN_FLIGHT 2
#define HELLO_EVERY (100 * MILLISECOND)

struct subscriber {
    uint64_t received; /* bytes */
    char last_letter;  /* of the hellos */
};

/* A message again and again, to begin anywhere in the first one. */
struct messages {
    size_t size; /* bytes of one */
    size_t length;
    const char *data; /* `length` bytes and a message more */
};

static struct {
    uint64_t subscribers, burst;
    struct connection *connections;
    struct connection *publisher;
    struct subscriber *readers;
    struct messages sent, delivered;
    uint64_t published, completed; /* bursts */
    uint64_t written;              /* bytes */
    /* of the bursts in flight */
    nanoseconds published_at[IN_FLIGHT];
    uint64_t missing[IN_FLIGHT]; /* deliveries */
    nanoseconds progress_at;
    /* open loop */
    nanoseconds began;
    double interval; /* nanoseconds from burst to burst; 0: closed loop */
} run;

static char buffer[READ_SIZE];

static bool has_window(void) { return run.published < run.completed + IN_FLIGHT; }

/* When the next burst is due; in a closed loop it is. */
static nanoseconds due_at(void) { return run.began + (nanoseconds)((double)run.published * run.interval); }

static void flush_publisher(void) {
    uint64_t total = run.published * run.burst * run.sent.size;
    while (run.written < total) {
        uint64_t left = total - run.written;
        size_t length = left < run.sent.length ? (size_t)left : run.sent.length;
        size_t taken = connection_write(run.publisher, run.sent.data + run.written % run.sent.size, length);
        run.written += taken;
        if (taken < length) break;
    }
}

static void publish(nanoseconds now) {
    if (run.completed == run.published) run.progress_at = now;
    run.published_at[run.published % IN_FLIGHT] = run.interval > 0 ? due_at() : now;
    run.missing[run.published % IN_FLIGHT] = run.subscribers * run.burst;
    run.published++;
    flush_publisher();
}

/* Messages number `message` to `end` have reached a subscriber. */
static void deliver(uint64_t message, uint64_t end, nanoseconds now) {
    while (message < end) {
        uint64_t burst = message / run.burst, burst_end = (burst + 1) * run.burst;
        uint64_t count = (burst_end < end ? burst_end : end) - message;
        if (burst >= run.published) die("more messages than were published");
        measurement_record(now - run.published_at[burst % IN_FLIGHT], count);
        run.missing[burst % IN_FLIGHT] -= count;
        message += count;
    }
}

/* What has come for a subscriber; 0: nothing. */
static size_t read_delivered(struct connection *connection) {
    size_t count = connection_read(connection, buffer, sizeof buffer);
    if (count > 0 && connection == run.publisher) die("the publisher was told something: its own messages?");
    return count;
}

static void receive(struct connection *connection, nanoseconds now) {
    struct subscriber *reader = &run.readers[connection->index];
    size_t count = read_delivered(connection), size = run.delivered.size;
    if (count == 0) return;
    if (memcmp(run.delivered.data + reader->received % size, buffer, count) != 0)
        die("subscriber %u: not the message that was published", connection->index);
    uint64_t before = reader->received / size;
    reader->received += count;
    deliver(before, reader->received / size, now);
    run.progress_at = now;
}

/* Before the first burst every subscriber must be known to the server, and accepting is nothing that TCP tells. Where
 * no prelude was answered, the publisher sends hellos, lines of another letter each, until one has reached all. */

static void read_hello(struct connection *connection) {
    struct subscriber *reader = &run.readers[connection->index];
    size_t count = read_delivered(connection);
    reader->received += count;
    for (size_t i = count; i-- > 0;)
        if (buffer[i] != '\n') {
            reader->last_letter = buffer[i];
            break;
        }
}

static uint64_t count_greeted(char letter) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < run.subscribers; i++)
        count += run.readers[i].last_letter == letter && run.readers[i].received % run.delivered.size == 0;
    return count;
}

static void send_hello(char letter) {
    size_t size = run.sent.size;
    memset(buffer, letter, size - 1);
    buffer[size - 1] = '\n';
    if (connection_write(run.publisher, buffer, size) < size) die("the server does not read");
}

static void greet_all(void) {
    static struct epoll_event events[ROUND];
    nanoseconds now = clock_now(), deadline = now + PATIENCE, next = now;
    char letter = 'z';
    uint64_t greeted;
    do {
        if (now >= next) {
            letter = letter == 'z' ? 'a' : (char)(letter + 1);
            send_hello(letter);
            next = now + HELLO_EVERY;
        }
        int happened = wait_for_events(events, next, &now);
        for (int i = 0; i < happened; i++)
            if (events[i].events & ~(uint32_t)EPOLLOUT) read_hello(events[i].data.ptr);
        greeted = count_greeted(letter);
        if (now > deadline)
            die("a published line has reached only %" PRIu64 " of %" PRIu64 " subscribers", greeted, run.subscribers);
    } while (greeted < run.subscribers);
    for (uint64_t i = 0; i < run.subscribers; i++) run.readers[i].received = 0;
}

static int serve_round(nanoseconds until, nanoseconds *now) {
    static struct epoll_event events[ROUND];
    int happened = wait_for_events(events, until, now);
    for (int i = 0; i < happened; i++) {
        struct connection *connection = events[i].data.ptr;
        if (events[i].events & ~(uint32_t)EPOLLOUT) receive(connection, *now);
        if (connection == run.publisher && (events[i].events & EPOLLOUT)) flush_publisher();
    }
    while (run.completed < run.published && run.missing[run.completed % IN_FLIGHT] == 0) run.completed++;
    if (run.completed < run.published && *now > run.progress_at + PATIENCE)
        die("nothing delivered for %.0f seconds; %" PRIu64 " messages of a burst are missing", (double)PATIENCE / 1e9,
            run.missing[run.completed % IN_FLIGHT]);
    return happened;
}

/* Returns in time for the next burst. What epoll's milliseconds are too coarse for is waited for by polling. */
static void serve_until_due(nanoseconds until, nanoseconds *now) {
    nanoseconds before = *now;
    if (has_window() && due_at() < until) until = due_at();
    bool polling = run.interval > 0 && until < before + 2 * MILLISECOND;
    if (polling)
        until = before;
    else if (run.interval > 0)
        until -= MILLISECOND;
    if (serve_round(until, now) == 0 && polling) measurement_waited(*now - before);
}

static struct messages repeated(struct bytes message, size_t length) {
    if (length < message.length) length = message.length;
    return (struct messages){message.length, length, repeat(message, length / message.length + 2)};
}

static void prepare_messages(const struct options *options) {
    struct bytes request = options->request, delivery = options->delivery;
    if (request.data == NULL) request = line_of((size_t)options->size);
    if (delivery.data == NULL) delivery = request;
    run.sent = repeated(request, (size_t)run.burst * request.length);
    run.delivered = repeated(delivery, READ_SIZE);
}

void run_fanout(const struct options *options) {
    run.subscribers = options->subscribers;
    run.burst = options->burst;
    prepare_messages(options);
    run.readers = allocate(run.subscribers, sizeof *run.readers);
    uint32_t count = (uint32_t)run.subscribers + 1;
    run.connections = establish(count, &options->beginning, &options->publisher, (struct bytes){NULL, 0});
    run.publisher = &run.connections[run.subscribers];
    if (options->beginning.prelude.data == NULL) greet_all();

    nanoseconds now = clock_now();
    nanoseconds start = now + (nanoseconds)(options->warmup * 1e9);
    nanoseconds end = start + (nanoseconds)(options->seconds * 1e9);
    run.began = run.progress_at = now;
    if (options->rate > 0) run.interval = 1e9 * (double)run.burst / options->rate;
    while (now < end) {
        while (has_window() && due_at() <= now) publish(now);
        serve_until_due(measurement_started() ? end : start, &now);
        if (!measurement_started() && now >= start) measurement_start(now);
    }
    measurement_stop(now);
    /* Whatever is lost shows here, as silence. */
    while (run.completed < run.published) serve_round(now + 10 * MILLISECOND, &now);
    connections_close(run.connections, count);
    measurement_print("deliveries", false);
}
