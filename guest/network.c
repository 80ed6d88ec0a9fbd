/* Network interfaces (netdevice(7)). A machine restored from memory keeps the address that its
 * interface had, whatever the host's command line says: so each is set here. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

enum { MOST_INTERFACES = 32 };

/* The kernel's numbers of eth0, eth1, …: an init system may rename them (udev), so that the name is
 * asked for each time. */
static unsigned numbers[MOST_INTERFACES];

static bool set_flags(int fd, const char *name, short on, short off) {
    struct ifreq request = {0};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return false;
    request.ifr_flags = (short)((request.ifr_flags | on) & ~off);
    return ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

static bool set_mac(int fd, const char *name, const char *text) {
    struct ifreq request = {.ifr_hwaddr = {.sa_family = ARPHRD_ETHER}};
    unsigned char *mac = (unsigned char *)request.ifr_hwaddr.sa_data;
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    return sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3],
                  &mac[4], &mac[5]) == 6 &&
           ioctl(fd, SIOCSIFHWADDR, &request) == 0;
}

static bool set_address(int fd, const char *name, unsigned long what, struct in_addr address) {
    struct ifreq request = {0};
    struct sockaddr_in value = {.sin_family = AF_INET, .sin_addr = address};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    memcpy(&request.ifr_addr, &value, sizeof value);
    return ioctl(fd, what, &request) == 0;
}

/* By the gateway to one address; to 0.0.0.0 means: to everywhere. */
static bool set_route(int fd, char *name, const char *to, const char *text) {
    struct sockaddr_in gateway = {.sin_family = AF_INET}, mask = gateway, target = gateway;
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = name};

    if (text[0] == '-')
        return true;
    if (inet_pton(AF_INET, text, &gateway.sin_addr) != 1 ||
        inet_pton(AF_INET, to, &target.sin_addr) != 1)
        return false;
    mask.sin_addr.s_addr = target.sin_addr.s_addr ? ~0u : 0;
    memcpy(&route.rt_dst, &target, sizeof target);
    memcpy(&route.rt_genmask, &mask, sizeof mask);
    memcpy(&route.rt_gateway, &gateway, sizeof gateway);
    return ioctl(fd, SIOCADDRT, &route) == 0 || errno == EEXIST;
}

/* `INDEX MAC ADDRESS/PREFIX GATEWAY|- GATEWAY|-`: out, and to the metadata service alone. */
static bool set_up(int fd, const char *value, struct problem *problem) {
    char mac[18], address[INET_ADDRSTRLEN], name[IFNAMSIZ];
    char out[INET_ADDRSTRLEN], metadata[INET_ADDRSTRLEN] = "-";
    unsigned index, prefix;
    struct in_addr own, mask;

    if (sscanf(value, "%u %17s %15[0-9.]/%u %15s %15s", &index, mac, address, &prefix, out,
               metadata) < 5 ||
        index >= MOST_INTERFACES || prefix > 32 || inet_pton(AF_INET, address, &own) != 1)
        return fail(problem, 125, 0, "A network interface was not described as it should be.");
    if (!numbers[index] || !if_indextoname(numbers[index], name))
        return fail(problem, 125, 0, "The machine has no network interface %u.", index);
    mask.s_addr = prefix ? htonl(~0u << (32 - prefix)) : 0;
    if (set_flags(fd, name, 0, IFF_UP) && set_mac(fd, name, mac) &&
        set_address(fd, name, SIOCSIFADDR, own) && set_address(fd, name, SIOCSIFNETMASK, mask) &&
        set_flags(fd, name, IFF_UP, 0) && set_route(fd, name, "0.0.0.0", out) &&
        set_route(fd, name, "169.254.169.254", metadata))
        return true;
    return fail(problem, 125, errno, "The network interface %s cannot be set up", name);
}

/* What is the same in every instance. */
void network_prepare(void) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    set_kernel("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    set_kernel("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    set_kernel("/proc/sys/net/ipv4/conf/all/arp_notify", "1"); /* tell others of a new address */
    set_flags(fd, "lo", IFF_UP, 0);
    for (unsigned n = 0; n < MOST_INTERFACES; n++) {
        char name[IFNAMSIZ];
        snprintf(name, sizeof name, "eth%u", n);
        numbers[n] = if_nametoindex(name);
    }
    close(fd);
}

bool network_set(const struct text *request, struct problem *problem) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const char *value;
    bool done = true;

    for (size_t at = 0; done && (value = text_next(request, "nic", &at));)
        done = set_up(fd, value, problem);
    close(fd);
    return done;
}
