/* What goes over the wire: a request and the right reply to it, as bytes in which the number of the
 * task, and the id of a JSON-RPC call, are written anew for each.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shapes.h"

enum { DIGITS = 8, LONGEST = 1000 /* of what stands around a text */ };
static const unsigned char mask[4] = {0x5a, 0x13, 0xc7, 0x2e};

struct line {
    char *bytes;
    long length;
    long number; /* where the number of the task stands: its text begins with it */
    long id;     /* where the JSON-RPC id stands */
};

static void fatal(const char *what) {
    perror(what);
    exit(2);
}

static void *allocate(size_t bytes) {
    void *memory = calloc(1, bytes);
    if (!memory) fatal("calloc");
    return memory;
}

static const struct shape *find_shape(const char *name) {
    for (int i = 0; i < SHAPES; i++)
        if (!strcmp(shapes[i].name, name)) return &shapes[i];
    return NULL;
}

/* So many bytes of text: room for the number, the filler again and again, and x for the rest. */
static char *make_text(const char *filler, long size) {
    char *text = memset(allocate(size + 1), 'x', size);
    const char *from = filler;
    for (long at = DIGITS, length; at < size; at += length, from += length) {
        if (!*from) from = filler;
        length = *from & 0x80 ? 3 : 1;
        if (at + length <= size) memcpy(text + at, from, length);
    }
    return text;
}

/* The text with \uXXXX for each of its characters that is not ASCII. */
static char *escape(const char *text) {
    char *escaped = allocate(2 * strlen(text) + 1), *to = escaped;
    for (const unsigned char *from = (const unsigned char *)text; *from;)
        if (*from & 0x80) {
            to += sprintf(to, "\\u%04x", (from[0] & 15) << 12 | (from[1] & 63) << 6 | (from[2] & 63));
            from += 3;
        } else {
            *to++ = (char)*from++;
        }
    return escaped;
}

/* The pattern with the text in place of its `$`. */
static struct line fill(const char *pattern, const char *text) {
    const char *gap = strchr(pattern, '$');
    struct line line = {.number = gap - pattern, .bytes = allocate(strlen(pattern) + strlen(text))};
    line.length = sprintf(line.bytes, "%.*s%s%s", (int)line.number, pattern, text, gap + 1);
    line.id = line.length - (long)strlen("100000000}\n");
    return line;
}

/* A line in a websocket message; what a client sends is masked. */
static struct line frame(struct line inner, int masked) {
    int bytes = inner.length < 126 ? 0 : inner.length < 65536 ? 2 : 8;
    int header = 2 + bytes + (masked ? 4 : 0);
    struct line line = {.length = header + inner.length, .number = header + inner.number};
    unsigned char *to = allocate(line.length);
    line.bytes = (char *)to;
    to[0] = 0x81;
    to[1] = (masked ? 0x80 : 0) | (bytes == 0 ? inner.length : bytes == 2 ? 126 : 127);
    for (int i = 0; i < bytes; i++) to[2 + i] = inner.length >> (8 * (bytes - 1 - i));
    if (masked) memcpy(to + 2 + bytes, mask, 4);
    for (long i = 0; i < inner.length; i++)
        to[header + i] = inner.bytes[i] ^ (masked ? mask[i % 4] : 0);
    free(inner.bytes);
    return line;
}

static void bare_task(const struct shape *shape, char *ask, char *answer) {
    sprintf(ask, "{\"function\":\"%s\",\"args\":%s}\n", shape->function, shape->args);
    sprintf(answer, "%s\n", shape->result);
}

static void json_rpc_call(const struct shape *shape, char *ask, char *answer) {
    sprintf(ask, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s,\"id\":100000000}\n",
            shape->function, shape->args);
    sprintf(answer, "{\"jsonrpc\":\"2.0\",\"result\":%s,\"id\":100000000}\n", shape->result);
}

/* The browser's side of the page: a text, and what the worker says to the task made of it. */
static void page_message(const struct shape *shape, char *ask, char *answer) {
    strcpy(ask, "$");
    strcpy(answer, shape->result);
}

/* The first digits of a text; a short one has fewer of them. */
static void write_number(char *to, uint32_t number, int digits, int masked) {
    for (int i = 0; i < digits; i++, number >>= 4)
        to[i] = "0123456789abcdef"[number & 15] ^ (masked ? mask[i % 4] : 0);
}

static void write_id(char *to, int slot) {
    for (int i = 8; i > 0; i--, slot /= 10) to[i] = '0' + slot % 10;
}

static int read_id(const char *from) {
    int slot = 0;
    for (int i = 1; i < 9; i++) slot = slot * 10 + (from[i] - '0');
    return slot;
}
