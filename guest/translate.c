/* `translate COUNT`: executes so many pieces of code, no two of them the same. Where the machine
 * translates what it executes (TCG of QEMU), each takes a few hundred bytes of the room for that,
 * until that is full, and dropped: which is what the host waits for (growing.py). */
#define _GNU_SOURCE
#include <linux/close_range.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"

enum { RETURN = 0xC3 };

int translate_main(int count, char **argv) {
    long pieces = count == 2 ? atol(argv[1]) : 0;

    if (pieces <= 0)
        return 2;
    close_range(3, ~0U, 0); /* as in online.c */
    int rights = PROT_READ | PROT_WRITE | PROT_EXEC;
    unsigned char *code = mmap(NULL, (size_t)pieces, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        return 1;
    memset(code, RETURN, (size_t)pieces);
    for (long n = 0; n < pieces; n++) {
        void (*piece)(void);
        unsigned char *at = code + n;
        memcpy(&piece, &at, sizeof piece);
        piece();
    }
    return 0;
}
