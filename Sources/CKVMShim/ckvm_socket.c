// SPDX-License-Identifier: MIT
// A server for one local client: a Unix socket, or TCP on the loopback interface.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "CKVMShim.h"

static long fail_closing(int fd) {
    long error = -(long)errno;
    close(fd);
    return error;
}

// Whether a socket of a server that has ended is in the way.
static int is_stale(const struct sockaddr_un *address) {
    struct stat status;
    if (lstat(address->sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) return 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return 0;
    int refused = connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

long ckvm_listen_unix(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0) return -ENOENT;
    if (length >= sizeof address.sun_path) return -ENAMETOOLONG;
    memcpy(address.sun_path, path, length + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -(long)errno;
    // The mode of the file that bind creates: other users cannot connect.
    fchmod(fd, S_IRUSR | S_IWUSR);
    int result = bind(fd, (const struct sockaddr *)&address, sizeof address);
    if (result != 0 && errno == EADDRINUSE && is_stale(&address) && unlink(path) == 0)
        result = bind(fd, (const struct sockaddr *)&address, sizeof address);
    if (result != 0 || listen(fd, 4) != 0) return fail_closing(fd);
    return fd;
}

long ckvm_listen_loopback(uint16_t port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -(long)errno;
    int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    // Connections inherit it.
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4) != 0) return fail_closing(fd);
    return fd;
}

void ckvm_unlink(const char *path) { unlink(path); }

void ckvm_shutdown(int fd) { shutdown(fd, SHUT_RDWR); }

bool ckvm_is_hung_up(int fd) {
    struct pollfd peer = {.fd = fd, .events = POLLRDHUP};
    return poll(&peer, 1, 0) > 0 && (peer.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

long ckvm_accept(int listener) {
    int fd;
    do {
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -(long)errno : fd;
}

long ckvm_receive(int fd, void *bytes, uint64_t size) {
    ssize_t count;
    // A kick that was meant for a vCPU of this thread may arrive late.
    do {
        count = recv(fd, bytes, size, 0);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -(long)errno : (long)count;
}

long ckvm_send_all(int fd, const void *bytes, uint64_t size, int64_t patience) {
    const uint8_t *next = bytes;
    while (size > 0) {
        ssize_t count = send(fd, next, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno == EAGAIN) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            struct timespec limit = {.tv_sec = patience / 1000000000, .tv_nsec = patience % 1000000000};
            if (ppoll(&writable, 1, &limit, NULL) == 0) return -ETIMEDOUT;
            continue;
        }
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return -(long)errno;
        next += count;
        size -= (uint64_t)count;
    }
    return 0;
}

long ckvm_wait_readable(const int *fds, uint32_t count) {
    struct pollfd polled[4];
    if (count > sizeof polled / sizeof *polled) return -EINVAL;
    for (uint32_t i = 0; i < count; i++) polled[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    if (poll(polled, count, -1) < 0) return errno == EINTR ? 0 : -(long)errno;
    long ready = 0;
    for (uint32_t i = 0; i < count; i++)
        if (polled[i].revents) ready |= 1l << i;
    return ready;
}
