/* The log of one instance: log.c. */
#ifndef LOG_H
#define LOG_H

#include <stddef.h>
#include <sys/types.h>

/* Write to `path` from now on, `size` bytes before it is rotated, `files` of them at most. -1 if
 * it cannot be opened. */
int log_open(const char *path, off_t size, int files);
/* Without a log, nothing. At most MESSAGE bytes. */
void log_write(const char *stream, const char *data, size_t length);

#endif
