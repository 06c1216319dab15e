/* A load generator: one thread, epoll, every reply checked.
 *
 * A task is one line, {"function":"send_mail","args":{...}}, a JSON-RPC call (--json-rpc) or, for the
 * whole page, a websocket message (--websocket); shapes.h has what is asked and what the right reply
 * is. Each text begins with a number of its own, so that a reply to another task is a wrong one.
 *
 * Closed loop: each connection keeps --depth tasks in flight. Open loop (--rate): tasks are due at
 * fixed times whatever the server does, and latencies count from when a task was due, so that what
 * a slow server delays is not left out. --per-task opens a connection for each task.
 *
 * All connections are open and have had one reply before the clock starts. With --wait, "ready" is
 * printed then and a line awaited, and the connections stay open after the result until standard
 * input ends: whoever measures the server reads its meters in these pauses.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "latencies.h"
#include "lines.h"

enum { BUFFER = 1 << 18, SOURCES = 64 };
static const double GRACE = 10; /* seconds that replies may take after the last task */

struct task {
    uint64_t due;
    uint32_t number;
    int in_flight;
};

struct connection {
    int fd;
    int is_open;         /* a websocket is when its handshake is over */
    int is_idle;         /* one of --idle */
    int served;          /* tasks begun in this run */
    uint64_t opened;
    int in_flight;
    int head;            /* of the ring of tasks; the oldest in flight */
    struct task *tasks;  /* --depth of them */
    char *out;           /* requests that the kernel has not taken yet */
    long out_from, out_to;
    char *reply;         /* a reply of which a part has come */
    long got;
};

static struct sockaddr_in server = {.sin_family = AF_INET};
static int connections = 50, depth = 1, per_task, json_rpc, websocket, idle, wait_for_go;
static long tasks = 100000, size;
static double rate, seconds = 60;

static const struct shape *shape = shapes;
static struct line request, reply; /* what they are like; number and id differ */
static int digits;                 /* of the number; a short text has fewer */

static struct connection *all;
static int poller;
static long started, finished, errors, most; /* tasks of one connection in a run */
static char first_error[200];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* ---- requests and replies ---- */

static void prepare(void) {
    char ask[LONGEST], answer[LONGEST];
    char *text = make_text(shape->filler, size), *escaped = escape(text);
    digits = size < DIGITS ? (int)size : DIGITS;
    (websocket ? page_message : json_rpc ? json_rpc_call : bare_task)(shape, ask, answer);
    request = fill(ask, text);
    reply = fill(answer, escaped);
    if (websocket) {
        request = frame(request, 1);
        reply = frame(reply, 0);
    }
    free(text);
    free(escaped);
}

/* The task that `got` answers, or NULL if it is not the reply of one in flight. */
static struct task *match(struct connection *c, const char *got) {
    int slot = c->head;
    if (json_rpc) {
        slot = read_id(got + reply.id);
        if (slot < 0 || slot >= depth) return NULL;
    }
    struct task *task = &c->tasks[slot];
    if (!task->in_flight) return NULL;
    write_number(reply.bytes + reply.number, task->number, digits, 0);
    if (json_rpc) write_id(reply.bytes + reply.id, slot);
    return memcmp(got, reply.bytes, reply.length) ? NULL : task;
}

/* ---- connections ---- */

static void fail(struct connection *c, const char *why) {
    errors += c->in_flight ? c->in_flight : 1;
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s", why);
}

static void open_connection(struct connection *c) {
    static int turn;
    int one = 1;
    c->opened = now_ns();
    struct sockaddr_in source = {.sin_family = AF_INET};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fatal("socket");
    /* Sources of their own: one address has but 28,000 ports, some of them in TIME_WAIT. */
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + turn++ % SOURCES);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&source, sizeof source)) fatal("bind");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        fatal("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) fatal("epoll_ctl");
    c->is_open = !websocket;
    c->in_flight = c->head = 0;
    c->out_from = c->out_to = c->got = 0;
    for (int i = 0; i < depth; i++) c->tasks[i].in_flight = 0;
    if (websocket)
        c->out_to = sprintf(c->out,
                            "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                            ntohs(server.sin_port));
}

static void close_connection(struct connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->in_flight = 0;
}

/* Give the kernel what it takes; -1 if the connection is lost. */
static int push(struct connection *c) {
    while (c->out_from < c->out_to) {
        ssize_t sent = send(c->fd, c->out + c->out_from, c->out_to - c->out_from, MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN || errno == ENOTCONN ? 0 : -1;
        c->out_from += sent;
    }
    return 0;
}

static void add_task(struct connection *c, uint64_t due) {
    int slot = (c->head + c->in_flight) % depth;
    if (json_rpc)
        for (slot = 0; c->tasks[slot].in_flight;) slot++;
    if (c->out_from == c->out_to) c->out_from = c->out_to = 0;
    if (c->out_from && c->out_to + request.length > depth * request.length) {
        memmove(c->out, c->out + c->out_from, c->out_to - c->out_from);
        c->out_to -= c->out_from;
        c->out_from = 0;
    }
    char *to = c->out + c->out_to;
    memcpy(to, request.bytes, request.length);
    write_number(to + request.number, started, digits, websocket);
    if (json_rpc) write_id(to + request.id, slot);
    c->out_to += request.length;
    c->tasks[slot] = (struct task){.due = due, .number = started, .in_flight = 1};
    c->in_flight++;
    c->served++;
    started++;
}

static int take_reply(struct connection *c, const char *got, uint64_t now) {
    struct task *task = match(c, got);
    if (!task) return -1;
    histogram[bucket_of(now - task->due)]++;
    task->in_flight = 0;
    if (!json_rpc) c->head = (c->head + 1) % depth;
    c->in_flight--;
    finished++;
    return 0;
}

static long take_handshake(struct connection *c, char *data, long length) {
    static const char end[] = "\r\n\r\n"; /* c->got counts how much of it has come */
    for (long i = 0; i < length; i++) {
        c->got = data[i] == end[c->got] ? c->got + 1 : data[i] == '\r';
        if (c->got == 4) {
            c->is_open = 1;
            c->got = 0;
            return i + 1;
        }
    }
    return length;
}

/* Read what has come; -1 if the connection is lost or a reply is wrong. */
static int pull(struct connection *c) {
    static char buffer[BUFFER];
    for (;;) {
        ssize_t length = recv(c->fd, buffer, BUFFER, 0);
        if (length < 0 && errno == EAGAIN) return 0;
        if (length <= 0) {
            fail(c, length ? strerror(errno) : "closed by the server");
            return -1;
        }
        uint64_t now = now_ns();
        long at = c->is_open ? 0 : take_handshake(c, buffer, length);
        while (at < length) {
            long have = length - at, missing = reply.length - c->got;
            const char *whole = buffer + at;
            if (c->got || have < reply.length) {
                long part = have < missing ? have : missing;
                memcpy(c->reply + c->got, buffer + at, part);
                c->got += part;
                at += part;
                if (c->got < reply.length) break;
                whole = c->reply;
                c->got = 0;
            } else {
                at += reply.length;
            }
            if (take_reply(c, whole, now)) {
                char why[120];
                snprintf(why, sizeof why, "a wrong reply: %.100s", whole);
                fail(c, why);
                return -1;
            }
        }
        if (length < BUFFER) return 0;
    }
}

/* ---- runs ---- */

/* Closed loop: as many as fit. */
static void refill(struct connection *c, long until) {
    if (rate || c->is_idle || !c->is_open) return;
    uint64_t due = per_task ? c->opened : now_ns();
    while (c->in_flight < depth && started < until && c->served < most) add_task(c, due);
    push(c); /* if it fails, an event tells */
}

/* Open loop: as many as are due. */
static void start_due(uint64_t begun, long base, long until) {
    static int turn;
    uint64_t now = now_ns();
    for (int tried = 0; started < until && tried < connections; tried++) {
        uint64_t due = begun + (uint64_t)((started - base) / rate * 1e9);
        if (due > now) return;
        struct connection *c = &all[turn++ % connections];
        if (c->in_flight >= depth || (!per_task && !c->is_open)) continue;
        if (per_task) open_connection(c);
        add_task(c, due);
        push(c);
        tried = -1;
    }
}

static void handle(struct connection *c, uint32_t events, long until) {
    int lost = 0;
    if (c->fd < 0) return;
    if (push(c)) {
        fail(c, strerror(errno));
        lost = 1;
    } else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP)) {
        long before = finished;
        lost = pull(c) < 0;
        if (!lost && (events & EPOLLRDHUP)) {
            if (!(per_task && finished > before)) fail(c, "closed by the server");
            lost = 1;
        }
        if (per_task && finished > before) lost = 1; /* it has served: that was its only task */
    }
    if (lost) {
        close_connection(c);
        if (!per_task || (!rate && started < until && c->served < most)) open_connection(c);
    }
    if (c->fd >= 0) refill(c, until);
}

/* Run `many` tasks; returns the seconds they took. */
static double run(long many, double limit) {
    struct epoll_event events[512];
    long base = started, until = started + many, errors_before = errors;
    uint64_t begun = now_ns(), end = begun + (uint64_t)(limit * 1e9);
    uint64_t last = end + (uint64_t)(GRACE * 1e9), now;
    finished = 0;
    for (int i = 0; i < connections; i++) {
        all[i].served = 0;
        if (per_task && !rate) open_connection(&all[i]);
        if (all[i].fd >= 0) refill(&all[i], until);
    }
    while (finished + errors - errors_before < until - base && (now = now_ns()) < last) {
        if (now > end && until > started) until = started;
        if (rate) start_due(begun, base, until);
        /* In an open loop this spins: a timer would be late by more than the server takes. */
        int ready = epoll_wait(poller, events, 512, rate ? 0 : 100);
        for (int i = 0; i < ready; i++) handle(events[i].data.ptr, events[i].events, until);
    }
    long lost = until - base - finished - (errors - errors_before);
    if (lost > 0) {
        errors += lost;
        if (!first_error[0]) snprintf(first_error, sizeof first_error, "no reply in time");
    }
    return (now_ns() - begun) / 1e9;
}

static void print_string(const char *text) {
    putchar('"');
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text >= 32 && (unsigned char)*text < 127)
            putchar(*text);
    putchar('"');
}

static void usage(void) {
    fprintf(stderr,
            "usage: load --port PORT [options]\n"
            "  --tasks N         how many (100000)\n"
            "  --seconds S       start none after so long (60)\n"
            "  --connections N   at once (50)\n"
            "  --depth N         tasks in flight on each (1)\n"
            "  --rate R          tasks a second, at fixed times (0: as fast as they are answered)\n"
            "  --shape NAME      of a task (page); one of:");
    for (int i = 0; i < SHAPES; i++) fprintf(stderr, " %s", shapes[i].name);
    fprintf(stderr,
            "\n"
            "  --size BYTES      of its text (page: 40, its line then has 138)\n"
            "  --idle N          further connections that send nothing (0)\n"
            "  --per-task        a connection for each task\n"
            "  --json-rpc        JSON-RPC calls with ids instead of bare tasks\n"
            "  --websocket       the whole page: websocket messages, each a text of shape page\n"
            "  --wait            print \"ready\" and await a line before the clock starts\n");
    exit(2);
}

static void read_options(int argc, char **argv) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'},     {"tasks", 1, 0, 't'},     {"seconds", 1, 0, 's'},
        {"connections", 1, 0, 'c'}, {"depth", 1, 0, 'd'},  {"rate", 1, 0, 'r'},
        {"shape", 1, 0, 'h'},    {"size", 1, 0, 'z'},      {"idle", 1, 0, 'i'},
        {"per-task", 0, &per_task, 1}, {"json-rpc", 0, &json_rpc, 1}, {"websocket", 0, &websocket, 1},
        {"wait", 0, &wait_for_go, 1}, {0, 0, 0, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (option) {
            case 'p': server.sin_port = htons(atoi(optarg)); break;
            case 't': tasks = atol(optarg); break;
            case 's': seconds = atof(optarg); break;
            case 'c': connections = atoi(optarg); break;
            case 'd': depth = atoi(optarg); break;
            case 'r': rate = atof(optarg); break;
            case 'h': shape = find_shape(optarg); break;
            case 'z': size = atol(optarg); break;
            case 'i': idle = atoi(optarg); break;
            case 0: break;
            default: usage();
        }
    if (!server.sin_port || optind < argc || connections < 1 || depth < 1 || size < 0 || !shape)
        usage();
    if (per_task) depth = 1;
    if (!size) size = shape->size;
}

/* Open them a few at a time, so that the server's queue does not overflow. */
static void open_all(struct connection *list, int many) {
    for (int i = 0; i < many; i++) {
        open_connection(&list[i]);
        if (i % 100 == 99) usleep(2000);
    }
}

static struct connection *make(int many) {
    struct connection *list = allocate(many * sizeof *list);
    for (int i = 0; i < many; i++) {
        list[i].fd = -1;
        list[i].tasks = allocate(depth * sizeof(struct task));
        list[i].out = allocate(depth * request.length + 400);
        list[i].reply = allocate(reply.length);
    }
    return list;
}

int main(int argc, char **argv) {
    char line[16];
    struct rlimit limit;
    read_options(argc, argv);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    prepare();
    poller = epoll_create1(0);
    all = make(connections);
    if (!per_task) open_all(all, connections);
    double wanted = rate;
    rate = 0;
    most = depth;
    run((long)connections * depth, seconds);
    most = LONG_MAX;
    rate = wanted;
    if (errors) {
        fprintf(stderr, "load: before the start: %s\n", first_error);
        return 1;
    }
    if (idle) {
        struct connection *list = make(idle);
        for (int i = 0; i < idle; i++) list[i].is_idle = 1;
        open_all(list, idle);
    }
    memset(histogram, 0, sizeof histogram);
    if (wait_for_go) {
        puts("ready");
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin)) return 1;
    }
    double took = run(tasks, seconds);
    printf("{\"tasks\":%ld,\"errors\":%ld,\"seconds\":%.6f,\"error\":", finished, errors, took);
    print_string(first_error);
    printf(",\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}\n", percentile(.5),
           percentile(.9), percentile(.99), percentile(.999), percentile(1));
    fflush(stdout);
    while (wait_for_go && fgets(line, sizeof line, stdin)) continue;
    return 0;
}
