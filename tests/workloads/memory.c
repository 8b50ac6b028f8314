// SPDX-License-Identifier: GPL-3.0-or-later
//
// Workload: fills MIB mebibytes with numbers, changes a part of them in each step, and prints a checksum of all at the end.
// memory MIB STEPS PACE_MS: the output depends on MIB and STEPS alone. The output goes to standard output and, appended, to sums.txt.
// The last step waits until there is no file `hold`.
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void pause_ms(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000L};
    // A checkpoint must not be seen by the program: an interrupted sleep would be one.
    if (nanosleep(&left, NULL) != 0) {
        perror("nanosleep");
        exit(3);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const size_t count = (size_t)atol(argv[1]) * (1 << 20) / sizeof(uint64_t);
    const long steps = atol(argv[2]), pace = atol(argv[3]);
    uint64_t *numbers = malloc(count * sizeof *numbers);
    FILE *file = fopen("sums.txt", "a");
    if (numbers == NULL || file == NULL) return 2;
    uint64_t x = 88172645463325252ULL;
    for (size_t i = 0; i < count; ++i) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        numbers[i] = x;
    }
    for (long step = 0; step < steps; ++step) {
        uint64_t sum = 0;
        for (size_t i = (size_t)step * 4096 % count, n = 0; n < 100000; ++n, i = (i + 511) % count) {
            numbers[i] = numbers[i] * 6364136223846793005ULL + (uint64_t)step;
            sum += numbers[i];
        }
        printf("step %ld %llu\n", step, (unsigned long long)sum);
        fflush(stdout);
        fprintf(file, "%ld %llu\n", step, (unsigned long long)sum);
        fflush(file);
        pause_ms(pace);
        while (step == steps - 2 && access("hold", F_OK) == 0) pause_ms(pace);
    }
    uint64_t all = 0;
    for (size_t i = 0; i < count; ++i) all = all * 31 + numbers[i];
    printf("all %llu\n", (unsigned long long)all);
    return 0;
}
