/* The floor: an epoll server that sends back the text of each task without reading its JSON.
 *
 * It knows where the text stands in the generator's request, so it does the system calls of a
 * server, and no more.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 1 << 16 };
static const char before[] = "{\"function\":\"echo\",\"args\":{\"text\":";

int main(int argc, char **argv) {
    static char in[BUFFER], out[BUFFER];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("echo");
        return 1;
    }
    int poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (client < 0) continue;
                event.data.fd = client;
                epoll_ctl(poller, EPOLL_CTL_ADD, client, &event);
                continue;
            }
            ssize_t length = recv(fd, in, BUFFER, 0);
            if (length <= 0) {
                if (length == 0 || errno != EAGAIN) close(fd);
                continue;
            }
            char *line = in, *end, *to = out;
            while ((end = memchr(line, '\n', in + length - line))) {
                long text = end - line - (long)sizeof before + 1 - 2;
                if (text > 0) {
                    memcpy(to, line + sizeof before - 1, text);
                    to += text;
                    *to++ = '\n';
                }
                line = end + 1;
            }
            if (to > out && send(fd, out, to - out, MSG_NOSIGNAL) < 0) close(fd);
        }
    }
}
