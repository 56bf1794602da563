/*
 * What is counted between warm-up and end: a count, a latency histogram, our own processor time.
 *
 * The histogram is log-linear, as HdrHistogram is: each power of two is split into 128 equal buckets, so a value is
 * known to better than 0.8 %, from nanoseconds to hours, in a fixed table.
 */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define SPLIT_BITS 7
#define SPLIT (UINT64_C(1) << SPLIT_BITS)
#define LARGEST_BITS 44 /* 2^44 ns are almost five hours */
#define BUCKETS ((LARGEST_BITS - SPLIT_BITS + 1) * SPLIT)

#define LONGEST_POLL UINT64_C(20000) /* nanoseconds */

static struct {
    bool running;
    nanoseconds from, until;
    nanoseconds cpu_from, cpu_until, waited;
    uint64_t count;
    uint64_t unanswered;
    nanoseconds max;
    uint64_t buckets[BUCKETS];
} measured;

static nanoseconds read_clock(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (nanoseconds)time.tv_sec * SECOND + (nanoseconds)time.tv_nsec;
}

nanoseconds clock_now(void) { return read_clock(CLOCK_MONOTONIC); }

static size_t bucket_of(nanoseconds value) {
    if (value < SPLIT) return (size_t)value;
    if (value >> LARGEST_BITS) return BUCKETS - 1;
    unsigned shift = 63U - (unsigned)__builtin_clzll(value) - SPLIT_BITS;
    return (size_t)(shift * SPLIT + (value >> shift));
}

/* The largest value that falls into the bucket. */
static nanoseconds bucket_edge(size_t bucket) {
    if (bucket < SPLIT) return bucket;
    unsigned shift = (unsigned)(bucket / SPLIT) - 1;
    return ((bucket % SPLIT + SPLIT + 1) << shift) - 1;
}

static void add(nanoseconds latency, uint64_t count) {
    measured.buckets[bucket_of(latency)] += count;
    if (latency > measured.max) measured.max = latency;
}

static nanoseconds percentile(double share) {
    uint64_t total = measured.count + measured.unanswered;
    double wanted = share * (double)total;
    uint64_t below = 0;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        below += measured.buckets[bucket];
        if (below > 0 && (double)below >= wanted) {
            nanoseconds edge = bucket_edge(bucket);
            return edge < measured.max ? edge : measured.max;
        }
    }
    return measured.max;
}

void measurement_start(nanoseconds now) {
    measured.from = now;
    measured.cpu_from = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    measured.running = true;
}

bool measurement_started(void) { return measured.running; }

void measurement_record(nanoseconds latency, uint64_t count) {
    if (!measured.running) return;
    measured.count += count;
    add(latency, count);
}

void measurement_record_unanswered(nanoseconds latency) {
    measured.unanswered++;
    add(latency, 1);
}

void measurement_waited(nanoseconds time) {
    /* A poll takes a microsecond or two. One that took longer was interrupted, and was then not our processor time. */
    if (measured.running && time < LONGEST_POLL) measured.waited += time;
}

void measurement_stop(nanoseconds now) {
    measured.until = now;
    measured.cpu_until = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    measured.running = false;
}

void measurement_print(const char *things, bool with_unanswered) {
    double seconds = (double)(measured.until - measured.from) / 1e9;
    double cpu = ((double)(measured.cpu_until - measured.cpu_from) - (double)measured.waited) / 1e9;
    if (measured.count == 0) die("no %s in %.2f seconds", things, seconds);
    printf("{\"%s\": %" PRIu64 ", \"seconds\": %.4f, \"rate\": %.1f, ", things, measured.count, seconds,
           (double)measured.count / seconds);
    printf("\"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f, ", (double)percentile(0.5) / 1e3,
           (double)percentile(0.99) / 1e3, (double)percentile(0.999) / 1e3, (double)measured.max / 1e3);
    if (with_unanswered) printf("\"unanswered\": %" PRIu64 ", ", measured.unanswered);
    printf("\"cpu\": %.3f}\n", cpu / seconds);
}
