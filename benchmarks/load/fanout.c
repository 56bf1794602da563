/*
 * One to all: `load fanout`. The last connection publishes, all others only read.
 *
 * All lines are alike, so what a subscriber has received is known by its number of bytes, and checking it is one
 * comparison per read. Two bursts are in flight, so that the server has the next one before the last subscriber has
 * read the one before it.
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

static struct {
    uint64_t subscribers, burst;
    size_t size;
    struct connection *connections;
    struct connection *publisher;
    struct subscriber *readers;
    char *lines;                   /* as long as a read and a burst, and a line more to begin anywhere in */
    size_t lines_length;           /* without that line */
    uint64_t published, completed; /* bursts */
    uint64_t written;              /* bytes */
    /* of the bursts in flight */
    nanoseconds published_at[IN_FLIGHT];
    uint64_t missing[IN_FLIGHT]; /* deliveries */
    nanoseconds progress_at;
} run;

static char buffer[READ_SIZE];

static void flush_publisher(void) {
    uint64_t total = run.published * run.burst * run.size;
    while (run.written < total) {
        uint64_t left = total - run.written;
        size_t length = left < run.lines_length ? (size_t)left : run.lines_length;
        size_t taken = connection_write(run.publisher, run.lines + run.written % run.size, length);
        run.written += taken;
        if (taken < length) break;
    }
}

static void publish(nanoseconds now) {
    run.published_at[run.published % IN_FLIGHT] = now;
    run.missing[run.published % IN_FLIGHT] = run.subscribers * run.burst;
    run.published++;
    flush_publisher();
}

/* Lines number `line` to `end` have reached a subscriber. */
static void deliver(uint64_t line, uint64_t end, nanoseconds now) {
    while (line < end) {
        uint64_t burst = line / run.burst, burst_end = (burst + 1) * run.burst;
        uint64_t count = (burst_end < end ? burst_end : end) - line;
        if (burst >= run.published) die("more lines than were published");
        measurement_record(now - run.published_at[burst % IN_FLIGHT], count);
        run.missing[burst % IN_FLIGHT] -= count;
        line += count;
    }
}

static void receive(struct connection *connection, nanoseconds now) {
    struct subscriber *reader = &run.readers[connection->index];
    size_t count = connection_read(connection, buffer, sizeof buffer);
    if (count == 0) return;
    if (connection == run.publisher) die("the publisher got its own lines back");
    if (memcmp(run.lines + reader->received % run.size, buffer, count) != 0)
        die("subscriber %u: not the line that was published", connection->index);
    uint64_t before = reader->received / run.size;
    reader->received += count;
    deliver(before, reader->received / run.size, now);
    run.progress_at = now;
}

/* Before the first burst every subscriber must be known to the server, and accepting is nothing that TCP tells. So the
 * publisher sends hellos, each of another letter, until one has reached all. */

static void read_hello(struct connection *connection) {
    struct subscriber *reader = &run.readers[connection->index];
    size_t count = connection_read(connection, buffer, sizeof buffer);
    if (count == 0) return;
    if (connection == run.publisher) die("the publisher got its own lines back");
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
        count += run.readers[i].last_letter == letter && run.readers[i].received % run.size == 0;
    return count;
}

static void send_hello(char letter) {
    memset(buffer, letter, run.size - 1);
    buffer[run.size - 1] = '\n';
    if (connection_write(run.publisher, buffer, run.size) < run.size) die("the server does not read");
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

static void serve_round(nanoseconds until, nanoseconds *now) {
    static struct epoll_event events[ROUND];
    int happened = wait_for_events(events, until, now);
    for (int i = 0; i < happened; i++) {
        struct connection *connection = events[i].data.ptr;
        if (events[i].events & ~(uint32_t)EPOLLOUT) receive(connection, *now);
        if (connection == run.publisher && (events[i].events & EPOLLOUT)) flush_publisher();
    }
    while (run.completed < run.published && run.missing[run.completed % IN_FLIGHT] == 0) run.completed++;
    if (*now - run.progress_at > PATIENCE)
        die("nothing delivered for %.0f seconds; %" PRIu64 " lines of a burst are missing", (double)PATIENCE / 1e9,
            run.missing[run.completed % IN_FLIGHT]);
}

void run_fanout(const struct options *options) {
    run.subscribers = options->subscribers;
    run.burst = options->burst;
    run.size = (size_t)options->size;
    run.lines_length = (size_t)(run.burst * run.size);
    if (run.lines_length < READ_SIZE) run.lines_length = READ_SIZE;
    run.lines = lines_of(run.size, run.lines_length / run.size + 2);
    run.readers = allocate(run.subscribers, sizeof *run.readers);
    run.connections = establish((uint32_t)run.subscribers + 1, options, (struct bytes){NULL, 0});
    run.publisher = &run.connections[run.subscribers];
    greet_all();

    nanoseconds now = clock_now();
    nanoseconds start = now + (nanoseconds)(options->warmup * 1e9);
    nanoseconds end = start + (nanoseconds)(options->seconds * 1e9);
    run.progress_at = now;
    while (now < end) {
        while (run.published < run.completed + IN_FLIGHT) publish(now);
        serve_round(measurement_started() ? end : start, &now);
        if (!measurement_started() && now >= start) measurement_start(now);
    }
    measurement_stop(now);
    /* Whatever is lost shows here, as silence. */
    while (run.completed < run.published) serve_round(now + 10 * MILLISECOND, &now);
    connections_close(run.connections, (uint32_t)run.subscribers + 1);
    measurement_print("deliveries", false);
}
