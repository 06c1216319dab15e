/* The floor: an epoll server that sends back the text of each task without reading its JSON.
 *
 * It knows where the text stands in the generator's requests (shapes.h) and what stands around it in
 * the replies, so it does the system calls of a server, copies, and no more. It cannot escape: the
 * replies to `korean` are wrong.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shapes.h"

enum { BUFFER = 1 << 21, CLIENTS = 1 << 16, LONGEST = 1000 };

struct known {
    char before[LONGEST], reply_before[LONGEST], reply_after[LONGEST];
    long before_length, after_length, reply_before_length, reply_after_length;
};

static struct known known[SHAPES], *last = known;
static struct {
    char *bytes; /* a task of which a part has come */
    long length;
} held[CLIENTS];
static char in[BUFFER], out[BUFFER];

static void learn(struct known *one, const struct shape *shape) {
    long text = strchr(shape->args, '$') - shape->args;
    long reply_text = strchr(shape->result, '$') - shape->result;
    one->before_length = sprintf(one->before, "{\"function\":\"%s\",\"args\":%.*s", shape->function,
                                 (int)text, shape->args);
    one->after_length = strlen(shape->args + text + 1) + strlen("}");
    one->reply_before_length =
        sprintf(one->reply_before, "%.*s", (int)reply_text, shape->result);
    one->reply_after_length = sprintf(one->reply_after, "%s\n", shape->result + reply_text + 1);
}

static int is_of(const struct known *one, const char *line, long length) {
    return length >= one->before_length + one->after_length &&
           !memcmp(line, one->before, one->before_length);
}

/* The end of the reply that is written there; NULL if the task is of no shape that is known. */
static char *reply(char *to, const char *line, long length) {
    if (!is_of(last, line, length))
        for (last = known; !is_of(last, line, length);)
            if (++last == known + SHAPES) {
                last = known;
                return NULL;
            }
    to = mempcpy(to, last->reply_before, last->reply_before_length);
    to = mempcpy(to, line + last->before_length, length - last->before_length - last->after_length);
    return mempcpy(to, last->reply_after, last->reply_after_length);
}

static int send_all(int fd, const char *from, const char *to) {
    while (from < to) {
        ssize_t sent = send(fd, from, to - from, MSG_NOSIGNAL);
        if (sent >= 0)
            from += sent;
        else if (errno != EAGAIN)
            return -1;
        else
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
    }
    return 0;
}

/* Keep what is left of the bytes until the rest of the task comes; -1 if there is no room. */
static int hold(int fd, const char *rest, long length) {
    if (length && !held[fd].bytes && !(held[fd].bytes = malloc(BUFFER))) return -1;
    if (length) memmove(held[fd].bytes, rest, length);
    held[fd].length = length;
    return 0;
}

/* Answer what has come; -1 if the connection has to go. */
static int serve(int fd) {
    long before = held[fd].length;
    char *buffer = before ? held[fd].bytes : in, *line = buffer, *end, *to = out;
    ssize_t got = recv(fd, buffer + before, BUFFER - before, 0);
    if (got <= 0) return got < 0 && errno == EAGAIN ? 0 : -1;
    char *stop = buffer + before + got, *from = buffer + before;
    while ((end = memchr(from, '\n', stop - from))) {
        if (!(to = reply(to, line, end - line))) return -1;
        line = from = end + 1;
    }
    if (send_all(fd, out, to)) return -1;
    return hold(fd, line, stop - line);
}

static void drop(int fd) {
    free(held[fd].bytes);
    memset(&held[fd], 0, sizeof held[fd]);
    close(fd);
}

static int listen_on(int port) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("echo");
        exit(1);
    }
    return listener;
}

int main(int argc, char **argv) {
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0), poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (int i = 0; i < SHAPES; i++) learn(&known[i], &shapes[i]);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (serve(fd)) drop(fd);
                continue;
            }
            int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (client < 0) continue;
            event.data.fd = client;
            if (client >= CLIENTS || epoll_ctl(poller, EPOLL_CTL_ADD, client, &event)) close(client);
        }
    }
}
