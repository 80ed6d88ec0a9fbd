/* What a supervisor and its clients say to each other.
 *
 * Over AF_UNIX, SOCK_SEQPACKET: one message is one packet, a byte that names its type and
 * then at most MESSAGE bytes. Numbers are int32_t in the host's byte order.
 *
 * The first connection is descriptor 3 of the supervisor; the daemon made it. It is told how
 * the start went (STARTED or FAILED), and is an ordinary connection from then on. When it is
 * closed before, the start is taken back. Others come through the socket `socket` in the
 * container's directory.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

enum { MESSAGE = 1 << 15 };

/* From a client */
enum {
    ATTACH = 'a',  /* give me the container's output from now on, and its exit code */
    EXECUTE = 'e', /* start a process in it: the path of the file for its pid, then the
                      runtime's argument list, each ended by a zero byte; with four
                      descriptors (SCM_RIGHTS): its standard input, output and errors, and
                      one that the runtime gets as descriptor 3. Ends with the connection. */
    INPUT = 'i',   /* bytes for the container's standard input */
    CLOSE = 'c',   /* there is no more of it */
    WINDOW = 'w',  /* two numbers: rows and columns of the container's terminal */
    SIGNAL = 'k',  /* a number: send that signal to the process that EXECUTE started */
};

/* To a client */
enum {
    STARTED = 's', /* two numbers: the pids, in the host's eyes, of the container's process and of
                      the supervisor; one for EXECUTE: the pid of its process */
    FAILED = 'f',  /* text: why the container did not start; none for EXECUTE, whose runtime
                      writes to the standard errors that came with it */
    OUTPUT = 'o',  /* bytes that the container wrote to standard output, or its terminal */
    ERRORS = 'r',  /* bytes that it wrote to standard error */
    EXITED = 'x',  /* a number: the exit code, 128 + n for signal n; the last message */
};

#endif
