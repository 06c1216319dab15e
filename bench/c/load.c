/* A load generator for line-framed JSON tasks: one thread, epoll, every reply checked.
 *
 * Closed loop: each of --connections keeps --depth tasks in flight, or opens a connection for each
 * task (--per-task). Open loop: with --rate, tasks are due at fixed times whatever the server does,
 * and a latency counts from the time a task was due (no coordinated omission).
 *
 * Prints one line of JSON: tasks, errors, seconds, and latencies in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
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

enum { BUCKETS = 64 * 32, BUFFER = 1 << 16 };

struct connection {
    int fd;
    long in_flight;
    long sent_bytes;      /* of the batch that is going out */
    long got;             /* bytes of the reply so far */
    int head, count;      /* ring of due times */
    uint64_t *due;
};

static struct sockaddr_in server;
static int connections = 50, depth = 1, per_task = 0, idle = 0, json_rpc = 0;
static long tasks = 100000, size = 64, started = 0, finished = 0, errors = 0;
static double rate = 0, seconds_limit = 120;
static char *request, *batch, *reply;
static long request_length, reply_length;
static uint64_t histogram[BUCKETS], first_due;
static int poller;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* 32 buckets to each power of two: at most 3 % off. */
static int bucket_of(uint64_t ns) {
    if (ns < 32) return (int)ns;
    int power = 63 - __builtin_clzll(ns);
    int index = (power - 4) * 32 + (int)((ns >> (power - 5)) & 31);
    return index < BUCKETS ? index : BUCKETS - 1;
}

static double bucket_us(int index) {
    if (index < 32) return index / 1e3;
    int power = index / 32 + 4;
    return (double)((32 + (uint64_t)(index & 31)) << (power - 5)) / 1e3;
}

static double percentile(double share) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += histogram[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) && seen >= share * total) return bucket_us(i);
    return 0;
}

static void fatal(const char *what) { perror(what); exit(2); }

static void prepare(void) {
    char *text = malloc(size + 1);
    memset(text, 'x', size);
    text[size] = 0;
    request = malloc(size + 200);
    reply = malloc(size + 200);
    if (json_rpc) {
        request_length = sprintf(request, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{\"text\":\"%s\"},\"id\":7}\n", text);
        reply_length = sprintf(reply, "{\"jsonrpc\":\"2.0\",\"result\":\"%s\",\"id\":7}\n", text);
    } else {
        request_length = sprintf(request, "{\"function\":\"echo\",\"args\":{\"text\":\"%s\"}}\n", text);
        reply_length = sprintf(reply, "\"%s\"\n", text);
    }
    batch = malloc(request_length * depth);
    for (int i = 0; i < depth; i++) memcpy(batch + i * request_length, request, request_length);
    free(text);
}

static int open_socket(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0) fatal("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) fatal("connect");
    return fd;
}

static void watch(struct connection *c) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) fatal("epoll_ctl");
}

/* Send what is due on the connection; the kernel may take it in parts. */
static int push(struct connection *c) {
    while (c->sent_bytes) {
        long offset = request_length - (c->sent_bytes - 1) % request_length - 1;
        long chunk = c->sent_bytes;
        const char *from = batch + offset;
        if (chunk > request_length * depth - offset) chunk = request_length * depth - offset;
        ssize_t sent = send(c->fd, from, chunk, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN || errno == ENOTCONN) return 0;
            return -1;
        }
        c->sent_bytes -= sent;
    }
    return 0;
}

static void begin(struct connection *c, long many, uint64_t due) {
    for (long i = 0; i < many; i++) {
        c->due[(c->head + c->count) % depth] = due;
        c->count++;
    }
    c->in_flight += many;
    c->sent_bytes += many * request_length;
    started += many;
    if (push(c)) errors++;
}

static void start_again(struct connection *c) {
    close(c->fd);
    c->fd = open_socket();
    c->in_flight = c->got = c->sent_bytes = 0;
    c->head = c->count = 0;
    watch(c);
}

/* Read replies; returns how many came, or -1 if the connection is lost. */
static long pull(struct connection *c) {
    static char buffer[BUFFER];
    long came = 0;
    for (;;) {
        ssize_t length = recv(c->fd, buffer, BUFFER, 0);
        if (length < 0) return errno == EAGAIN ? came : -1;
        if (length == 0) return -1;
        for (ssize_t i = 0; i < length;) {
            long want = reply_length - c->got, have = length - i < want ? length - i : want;
            if (memcmp(buffer + i, reply + c->got, have)) {
                fprintf(stderr, "a wrong reply: %.*s\n", (int)(length - i < 200 ? length - i : 200), buffer + i);
                exit(1);
            }
            c->got += have;
            i += have;
            if (c->got == reply_length) {
                c->got = 0;
                came++;
                histogram[bucket_of(now_ns() - c->due[c->head])]++;
                c->head = (c->head + 1) % depth;
                c->count--;
                c->in_flight--;
                finished++;
            }
        }
        if (length < BUFFER) return came;
    }
}

int main(int argc, char **argv) {
    server.sin_family = AF_INET;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (!strcmp(argv[i], "--port")) server.sin_port = htons(atoi(value));
        else if (!strcmp(argv[i], "--connections")) connections = atoi(value);
        else if (!strcmp(argv[i], "--depth")) depth = atoi(value);
        else if (!strcmp(argv[i], "--tasks")) tasks = atol(value);
        else if (!strcmp(argv[i], "--size")) size = atol(value);
        else if (!strcmp(argv[i], "--per-task")) per_task = atoi(value);
        else if (!strcmp(argv[i], "--idle")) idle = atoi(value);
        else if (!strcmp(argv[i], "--json-rpc")) json_rpc = atoi(value);
        else if (!strcmp(argv[i], "--rate")) rate = atof(value);
        else if (!strcmp(argv[i], "--seconds")) seconds_limit = atof(value);
        else { fprintf(stderr, "unknown option %s\n", argv[i]); return 2; }
    }
    inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    prepare();
    poller = epoll_create1(0);
    for (int i = 0; i < idle; i++) {
        open_socket();
        if (i % 100 == 99) usleep(5000); /* let the server accept them */
    }
    struct connection *all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) {
        all[i].fd = open_socket();
        all[i].due = calloc(depth, sizeof(uint64_t));
        watch(&all[i]);
    }
    if (idle) sleep(1);
    uint64_t start = first_due = now_ns(), end = start + (uint64_t)(seconds_limit * 1e9);
    if (!rate)
        for (int i = 0; i < connections && started < tasks; i++)
            begin(&all[i], depth < tasks - started ? depth : tasks - started, start);
    struct epoll_event events[1024];
    int turn = 0;
    while (finished + errors < tasks && now_ns() < end) {
        int timeout = 100;
        if (rate) {
            uint64_t now = now_ns(), due = start + (uint64_t)(started / rate * 1e9);
            int tried = 0;
            while (started < tasks && due <= now && tried < connections) {
                struct connection *c = &all[turn++ % connections];
                tried++;
                if (c->count >= depth) continue;
                begin(c, 1, due);
                tried = 0;
                due = start + (uint64_t)(started / rate * 1e9);
            }
            timeout = 0; /* a busy loop: the generator has a processor of its own */
        }
        int ready = epoll_wait(poller, events, 1024, timeout);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (push(c)) errors++;
            long came = events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? pull(c) : 0;
            if (came < 0) {
                errors += c->in_flight;
                start_again(c);
                came = depth;
            }
            if (came > 0 && !rate) {
                if (per_task) start_again(c);
                long left = tasks - started;
                if (left > 0) begin(c, came < left ? came : left, now_ns());
            } else if (came > 0 && per_task) {
                start_again(c);
            }
        }
    }
    double seconds = (now_ns() - start) / 1e9;
    printf("{\"tasks\":%ld,\"errors\":%ld,\"seconds\":%.4f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}\n",
           finished, errors + (started - finished - errors > 0 ? started - finished - errors : 0), seconds,
           percentile(.5), percentile(.9), percentile(.99), percentile(.999), percentile(1));
    return 0;
}
