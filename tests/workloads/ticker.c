// SPDX-License-Identifier: GPL-3.0-or-later
// What the tests' steps run.
//   ticker count NAME LINES PACE_MS [EXIT]   one line after another: name, rank, number; ends with the exit code
//   ticker sum NAME PACE_MS                  adds up the numbers that it reads, one a line, and writes each sum
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void pause_ms(int ms) {
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0) {
    }
}

static const char* rank(void) {
    const char* text = getenv("SLURM_PROCID");
    return text ? text : "-";
}

int main(int argc, char** argv) {
    char line[256];
    long sum = 0;
    if (argc >= 5 && strcmp(argv[1], "count") == 0) {
        for (int i = 0; i < atoi(argv[3]); ++i) {
            printf("%s %s %d\n", argv[2], rank(), i);
            fflush(stdout);
            pause_ms(atoi(argv[4]));
        }
        return argc > 5 ? atoi(argv[5]) : 0;
    }
    if (argc >= 4 && strcmp(argv[1], "sum") == 0) {
        while (fgets(line, sizeof line, stdin)) {
            sum += atol(line);
            printf("%s %s %ld\n", argv[2], rank(), sum);
            fflush(stdout);
            pause_ms(atoi(argv[3]));
        }
        return 0;
    }
    fprintf(stderr, "usage: see the source\n");
    return 2;
}
