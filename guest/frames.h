/* What sublet-machine on the host and the guest agent say to each other over virtio-serial.
 *
 * A frame is a header of eight bytes, then `length` bytes. Numbers are little-endian. Each
 * channel is one client's connection to the machine; channel 0 is the machine itself. PACKET
 * carries one packet of supervisor/protocol.h: the byte of its type and at most MESSAGE bytes.
 * A side sends no more bytes of packets on a channel than it has credit for; each begins with
 * CREDIT_AT_START, and CREDIT adds to it.
 */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdint.h>

#include "../supervisor/protocol.h"

enum { FRAME_HEADER = 8, FRAME_MOST = MESSAGE + 1, CREDIT_AT_START = 1 << 16, FRAME_TOKEN = 32 };

struct frame {
    uint16_t channel;
    uint8_t kind;
    uint8_t zero;
    uint32_t length;
};

/* Kinds of frames */
enum {
    FRAME_PACKET = 'p',
    FRAME_CREDIT = 'c', /* uint32_t: so many more bytes */
    FRAME_OPEN = 'n',   /* host: the channel begins */
    FRAME_SYNC = 's',   /* host, first of all: what READY told as sync=; what came before it was
                           meant for the agent before a reboot */
    FRAME_SHUT = 'x',   /* host: the client has gone; guest: that was all. A channel is over when
                           both have said so. */
};

/* Types of packets beyond those of the protocol. The payload of CONFIGURE, RENEW, QUIESCE and
 * EXECUTE is `key=value` texts, each ended by a zero byte. All but QUIESCE come in several packets
 * of the same type, of which an empty one is the last. */
enum {
    CONFIGURE = 'C', /* host: what the machine is to be, and what it is to run */
    RENEW = 'N',     /* host: the machine was restored from memory; its new identity and time */
    QUIESCE = 'Q',   /* host: say DONE, then nothing until GO; with fsfreeze=1 disks are at rest */
    GO = 'G',        /* host: go on */
    READY = 'R',     /* guest: it has booted, and waits for CONFIGURE; text: which agent, which
                        kernel, sync=TOKEN */
    DONE = 'd',      /* guest: RENEW or QUIESCE is done */
};

#endif
