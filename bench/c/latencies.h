/* A histogram of latencies: 32 buckets to each power of two, so at most 3 % off. */
#include <stdint.h>

enum { BUCKETS = 60 * 32 };
static uint64_t histogram[BUCKETS];

static int bucket_of(uint64_t ns) {
    if (ns < 32) return (int)ns;
    int power = 63 - __builtin_clzll(ns);
    int index = (power - 4) * 32 + (int)((ns >> (power - 5)) & 31);
    return index < BUCKETS ? index : BUCKETS - 1;
}

static double bucket_us(int index) {
    if (index < 32) return index / 1e3;
    return (double)((32 + (uint64_t)(index & 31)) << (index / 32 - 1)) / 1e3;
}

static double percentile(double share) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += histogram[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) && seen >= share * total) return bucket_us(i);
    return 0;
}
