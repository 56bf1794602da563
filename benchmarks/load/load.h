/*
 * What the parts of the load generator share.
 *
 *   options.c      the command line
 *   measurement.c  what is counted between warm-up and end, and the JSON that comes of it
 *   connection.c   one non-blocking connection, plain or TLS, and the one epoll set
 *   establish.c    opening many connections without overrunning the server's backlog
 *   echo.c fanout.c idle.c connect.c   the sub-commands
 *
 * Laws: one thread; the clock is read once per epoll round; nothing is allocated after the connections stand; per
 * batch of replies one read and one write. Whatever goes wrong ends the program: half a measurement is none.
 */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE /* hence first in every file: Linux beyond C11 and POSIX */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include <openssl/ssl.h>

typedef uint64_t nanoseconds;

#define SECOND UINT64_C(1000000000)
#define MILLISECOND UINT64_C(1000000)

/* Connections served per epoll round. One clock reading stands for all of them, so a round must stay short. */
#define ROUND 256
/* Bytes per read: the batch of every depth in use, and many batches of a fan-out. */
#define READ_SIZE ((size_t)256 * 1024)
/* How long a server may be silent when it owes us something. */
#define PATIENCE (10 * SECOND)

/* One line on stderr, exit status 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *allocate(size_t count, size_t size); /* zeroed; never NULL */
void raise_descriptor_limit(void); /* as far as the hard limit */

/* options.c */

enum command { COMMAND_ECHO = 1, COMMAND_FANOUT = 2, COMMAND_IDLE = 4, COMMAND_CONNECT = 8 };

struct bytes {
    const char *data; /* NULL: not given */
    size_t length;
};

/* How a connection begins. */
struct beginning {
    uint64_t port;
    struct bytes prelude; /* sent first; not given: nothing is sent, nothing awaited */
    struct bytes end;     /* how the answer to it ends */
};

struct options {
    enum command command;
    uint64_t clients;
    uint64_t depth;
    uint64_t subscribers;
    uint64_t burst;
    uint64_t size;
    double seconds;
    double warmup;
    double rate; /* messages a second over all clients; 0: closed loop */
    bool tls;
    bool check;
    struct beginning beginning;
    struct beginning publisher; /* of a fan-out */
    struct bytes request;
    struct bytes delivery;
    struct bytes expect;
};

void options_parse(struct options *options, int argc, char **argv);
struct bytes line_of(size_t size);
char *repeat(struct bytes text, size_t copies);

/* measurement.c */

nanoseconds clock_now(void);
void measurement_start(nanoseconds now);
bool measurement_started(void);
/* `count` things that took `latency` each. Without effect before the start. */
void measurement_record(nanoseconds latency, uint64_t count);
/* One that was still owed at the end: it belongs into the percentiles, not into the rate. */
void measurement_record_unanswered(nanoseconds latency);
/* Time spent polling for want of anything to do: it is not in cpu. */
void measurement_waited(nanoseconds time);
void measurement_stop(nanoseconds now);
/* The JSON object. Dies if nothing at all was measured. */
void measurement_print(const char *things, bool with_unanswered);

/* connection.c */

struct connection {
    int fd;
    uint32_t index;
    uint32_t watched; /* epoll events asked for */
    SSL *tls;         /* NULL: plain */
};

void connections_prepare(const struct options *options);
/* Starts a connect to 127.0.0.1; watches nothing yet. */
void connection_open(struct connection *connection, uint32_t index, uint64_t port);
/* Whether the connect has succeeded; dies if it has failed. */
bool connection_is_open(struct connection *connection);
/* Goes on with the TLS handshake; true when it is done, and at once for a plain connection. */
bool connection_handshake(struct connection *connection);
/* Bytes read; 0 when there are none now. Dies when the server has closed. */
size_t connection_read(struct connection *connection, char *buffer, size_t size);
/* Whether bytes are left that epoll knows nothing of, since TLS has read them already. */
bool connection_has_more(const struct connection *connection);
/* Bytes taken; watches for being writable if that was not all. */
size_t connection_write(struct connection *connection, const char *data, size_t length);
void connection_watch(struct connection *connection, uint32_t events);
/* The orderly end of all. */
void connections_close(struct connection *connections, uint32_t count);
/* A descriptor that is no connection: its events carry a NULL pointer. */
void watch_descriptor(int fd);
/* One epoll round: waits until something happened or `until`, then reads the clock. */
int wait_for_events(struct epoll_event *events, nanoseconds until, nanoseconds *now);

/* establish.c */

/* Opens `count` connections and does what must come before the first message: TLS, the prelude and its answer.
 * With `primer` each also sends that message and awaits its reply line: only then has the server surely accepted.
 * With `last` the last one begins in another way than the others. */
struct connection *establish(uint32_t count, const struct beginning *beginning, const struct beginning *last,
                             struct bytes primer);

/* the sub-commands */

void run_echo(const struct options *options);
void run_fanout(const struct options *options);
void run_idle(const struct options *options);
void run_connect(const struct options *options);

#endif
