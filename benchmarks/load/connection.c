/*
 * One non-blocking connection to 127.0.0.1, plain or TLS, and the one epoll set.
 *
 * Level-triggered: one read that does not fill the buffer needs no second one to see EAGAIN, and an end of stream that
 * arrives behind data is reported again by itself.
 */
#include "load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLOSED_EARLY "the server has closed it"

static int epoll_fd = -1;
static struct sockaddr_in server; /* the port is that of the last connect */
static SSL_CTX *tls_context;

static SSL_CTX *new_tls_context(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION)) die("OpenSSL cannot be set up");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    /* Otherwise each record costs two reads, one for its header and one for its body. */
    SSL_CTX_set_read_ahead(context, 1);
    /* What is still to be written stands at another address when it is tried again. */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}

void connections_prepare(const struct options *options) {
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) die("epoll_create1: %s", strerror(errno));
    server.sin_family = AF_INET;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (options->tls) tls_context = new_tls_context();
}

static void change_epoll(int operation, int fd, uint32_t events, void *pointer) {
    struct epoll_event event = {.events = events, .data.ptr = pointer};
    if (epoll_ctl(epoll_fd, operation, fd, &event) != 0) die("epoll_ctl: %s", strerror(errno));
}

void watch_descriptor(int fd) { change_epoll(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, NULL); }

void connection_watch(struct connection *connection, uint32_t events) {
    if (connection->watched == events) return;
    change_epoll(connection->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, connection->fd, events, connection);
    connection->watched = events;
}

void connection_open(struct connection *connection, uint32_t index, uint64_t port) {
    int on = 1;
    server.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket %u: %s", index, strerror(errno));
    *connection = (struct connection){.fd = fd, .index = index};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* There is no congestion on loopback to control. The simplest algorithm, which every kernel has, leaves a tenth
     * more of our core than BBR where that is the default. It governs what we send, not what the server sends. */
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", strlen("reno"));
    if (connect(fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS)
        die("connect to 127.0.0.1:%u: %s", ntohs(server.sin_port), strerror(errno));
    if (tls_context) {
        connection->tls = SSL_new(tls_context);
        if (connection->tls == NULL || !SSL_set_fd(connection->tls, fd)) die("out of memory for TLS");
        SSL_set_connect_state(connection->tls);
    }
}

bool connection_is_open(struct connection *connection) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) die("connection %u: connect: %s", connection->index, strerror(error));
    struct tcp_info info;
    length = sizeof info;
    getsockopt(connection->fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    return info.tcpi_state != TCP_SYN_SENT;
}

_Noreturn static void die_of(const struct connection *connection, const char *why) {
    die("connection %u: %s", connection->index, why);
}

/* What OpenSSL waits for, as an epoll event; dies of what is no waiting. */
static uint32_t tls_waits_for(const struct connection *connection, int result) {
    int reason = SSL_get_error(connection->tls, result);
    if (reason == SSL_ERROR_WANT_READ) return EPOLLIN;
    if (reason == SSL_ERROR_WANT_WRITE) return EPOLLIN | EPOLLOUT;
    unsigned long error = ERR_get_error();
    if (error != 0) die_of(connection, ERR_reason_error_string(error));
    die_of(connection, reason == SSL_ERROR_SYSCALL && errno ? strerror(errno) : CLOSED_EARLY);
}

bool connection_handshake(struct connection *connection) {
    if (connection->tls == NULL) return true;
    int result = SSL_do_handshake(connection->tls);
    if (result == 1) return true;
    connection_watch(connection, tls_waits_for(connection, result));
    return false;
}

size_t connection_read(struct connection *connection, char *buffer, size_t size) {
    if (connection->tls) {
        int count = SSL_read(connection->tls, buffer, (int)size);
        if (count > 0) return (size_t)count;
        tls_waits_for(connection, count);
        return 0;
    }
    ssize_t count = recv(connection->fd, buffer, size, 0);
    if (count > 0) return (size_t)count;
    if (count == 0) die_of(connection, CLOSED_EARLY);
    if (errno != EAGAIN && errno != EINTR) die_of(connection, strerror(errno));
    return 0;
}

bool connection_has_more(const struct connection *connection) {
    return connection->tls && SSL_has_pending(connection->tls);
}

size_t connection_write(struct connection *connection, const char *data, size_t length) {
    size_t taken = 0;
    if (connection->tls) {
        /* One call takes one record, 16 KiB at most. */
        while (taken < length) {
            size_t rest = length - taken;
            int count = SSL_write(connection->tls, data + taken, rest > 1 << 30 ? 1 << 30 : (int)rest);
            if (count <= 0) {
                tls_waits_for(connection, count);
                break;
            }
            taken += (size_t)count;
        }
    } else {
        ssize_t count = send(connection->fd, data, length, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN && errno != EINTR) die_of(connection, strerror(errno));
        taken = count < 0 ? 0 : (size_t)count;
    }
    connection_watch(connection, taken < length ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return taken;
}

void connections_close(struct connection *connections, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        /* Without close_notify this would be an attack to a strict server, and a line in its log. */
        if (connections[i].tls) SSL_shutdown(connections[i].tls);
        close(connections[i].fd);
    }
}

int wait_for_events(struct epoll_event *events, nanoseconds until, nanoseconds *now) {
    nanoseconds left = until > *now ? until - *now : 0;
    int count = epoll_wait(epoll_fd, events, ROUND, (int)((left + MILLISECOND - 1) / MILLISECOND));
    if (count < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
    *now = clock_now();
    return count < 0 ? 0 : count;
}
