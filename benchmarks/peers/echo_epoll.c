/*
 * The C peer: a line echo, one thread, epoll, as a competent C programmer writes it. Usage: echo_epoll PORT
 *
 * Per wake-up of a connection one read, and one write of all complete lines, straight from the buffer they were read
 * into. The beginning of a line stays there until its rest comes. While the client does not take its replies we do not
 * read from it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Also the longest line. */
#define BUFFER_SIZE 16384
#define EVENTS 512

struct client {
    int fd;
    size_t used;     /* bytes in the buffer */
    size_t complete; /* of these, in complete lines: they are to be echoed */
    size_t echoed;   /* of these, already written */
    char buffer[BUFFER_SIZE];
};

static int epoll_fd;

_Noreturn static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int operation, int fd, unsigned events, void *pointer) {
    struct epoll_event event = {.events = events, .data.ptr = pointer};
    if (epoll_ctl(epoll_fd, operation, fd, &event) != 0) die("epoll_ctl");
}

static void drop(struct client *client) {
    close(client->fd);
    free(client);
}

static void accept_clients(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct client *client = malloc(sizeof *client);
        if (client == NULL) die("malloc");
        client->fd = fd;
        client->used = client->complete = client->echoed = 0;
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, client);
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) die("accept4");
}

/* Whether the client is still there. */
static int echo_lines(struct client *client, int was_blocked) {
    ssize_t count = send(client->fd, client->buffer + client->echoed, client->complete - client->echoed, MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return 0;
    if (count > 0) client->echoed += (size_t)count;
    if (client->echoed < client->complete) {
        if (!was_blocked) watch(EPOLL_CTL_MOD, client->fd, EPOLLOUT, client);
        return 1;
    }
    client->used -= client->complete;
    memmove(client->buffer, client->buffer + client->complete, client->used);
    client->complete = client->echoed = 0;
    if (was_blocked) watch(EPOLL_CTL_MOD, client->fd, EPOLLIN, client);
    return 1;
}

static int read_lines(struct client *client) {
    ssize_t count = recv(client->fd, client->buffer + client->used, BUFFER_SIZE - client->used, 0);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    if (count == 0) return 0;
    const char *newline = memrchr(client->buffer + client->used, '\n', (size_t)count);
    client->used += (size_t)count;
    if (newline == NULL) return client->used < BUFFER_SIZE;
    client->complete = (size_t)(newline + 1 - client->buffer);
    return echo_lines(client, 0);
}

static int listen_on(const char *port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
    if (listen(fd, SOMAXCONN) != 0) die("listen");
    return fd;
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
    static struct epoll_event events[EVENTS];
    if (argc != 2 || atoi(argv[1]) < 1 || atoi(argv[1]) > 65535) {
        fprintf(stderr, "usage: echo_epoll PORT\n");
        return 2;
    }
    raise_descriptor_limit();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) die("epoll_create1");
    int listener = listen_on(argv[1]);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (client == NULL)
                accept_clients(listener);
            else if (!(client->complete > 0 ? echo_lines(client, 1) : read_lines(client)))
                drop(client);
        }
    }
}
