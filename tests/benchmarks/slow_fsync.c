/* Every fsync takes as long as FSYNC_MICROSECONDS says, and does nothing else: a disk that is the same on every machine.

   For LD_PRELOAD; used by the benchmarks of the log alone. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <time.h>

static int slow(void) {
    static long microseconds = -1;
    if (microseconds < 0) {
        const char *given = getenv("FSYNC_MICROSECONDS");
        microseconds = given ? atol(given) : 0;
    }
    struct timespec wait = {microseconds / 1000000, (microseconds % 1000000) * 1000};
    nanosleep(&wait, NULL);
    return 0;
}

int fsync(int descriptor) { return slow(); }
int fdatasync(int descriptor) { return slow(); }
int sync_file_range(int descriptor, long long offset, long long count, unsigned flags) { return 0; }
