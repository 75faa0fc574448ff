/* SPDX-License-Identifier: Apache-2.0 */
/* Many readers in one process: opens N streams, checks and times every event.
 *
 * Events carry `"seq":T`, the microsecond of CLOCK_MONOTONIC at which they were
 * published, and `"version":"N"`, their number from 1 on.
 * usage: feed_readers PORT STREAMS EVENTS CONNECTS_PER_SECOND [SOURCE [CURSOR]]
 * SOURCE is an address of ours to connect from: each has its own 28,000 ports.
 * CURSOR is sent as Last-Event-ID.
 * Prints "open" when all streams are open; when every stream has EVENTS events, or
 * on end of input, a JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CARRY 32768

struct stream {
    int fd, last, open, carried;
    char carry[CARRY];
};

static long lost, doubled, disordered, refused, closed;

static long now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static int by_value(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    int port = atoi(argv[1]), streams = atoi(argv[2]), events = atoi(argv[3]);
    int rate = atoi(argv[4]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct stream *all = calloc(streams, sizeof *all);
    long *taken = malloc(sizeof(long) * (size_t)streams * (events + 1)), samples = 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int poll_fd = epoll_create1(0), opened = 0, made = 0, finished = 0;
    struct epoll_event event = {.events = EPOLLIN}, ready[512];
    struct sockaddr_in source = {.sin_family = AF_INET};
    if (argc > 5)
        inet_pton(AF_INET, argv[5], &source.sin_addr);
    char request[512];
    snprintf(request, sizeof request,
             "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n"
             "Accept: text/event-stream\r\n%s%s%s\r\n",
             argc > 6 ? "Last-Event-ID: " : "", argc > 6 ? argv[6] : "",
             argc > 6 ? "\r\n" : "");
    long began = now_us(), told = 0;
    static char buffer[CARRY + (1 << 16)];
    while (finished + refused + closed < streams) {
        while (made < streams && made <= (now_us() - began) * rate / 1000000) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            int late = 1; /* the port is chosen with the connection */
            if (fd >= 0 && argc > 5)
                if (setsockopt(fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &late,
                               sizeof late) ||
                    bind(fd, (struct sockaddr *)&source, sizeof source))
                    return perror("bind"), 1;
            if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
                return perror("connect"), 1;
            if (send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
                return perror("send"), 1;
            all[made].fd = fd;
            event.data.u32 = made++;
            epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
        }
        if (!told && opened + refused == streams) {
            told = now_us();
            printf("open %d %ld\n", opened, told - began);
            fflush(stdout);
        }
        struct pollfd input = {.fd = 0, .events = POLLIN};
        if (told && poll(&input, 1, 0) > 0)
            break;
        int n = epoll_wait(poll_fd, ready, 512, made < streams ? 1 : 200);
        for (int i = 0; i < n; i++) {
            struct stream *s = &all[ready[i].data.u32];
            memcpy(buffer, s->carry, s->carried);
            ssize_t got = recv(s->fd, buffer + s->carried, 1 << 16, MSG_DONTWAIT);
            if (got <= 0) {
                if (got < 0 && (errno == EAGAIN || errno == EINTR))
                    continue;
                close(s->fd);
                if (s->last < events)
                    closed++;
                continue;
            }
            long at = now_us();
            got += s->carried;
            s->carried = 0;
            buffer[got] = 0;
            if (!s->open) {
                s->open = 1;
                if (strncmp(buffer, "HTTP/1.1 200", 12)) {
                    refused++;
                    close(s->fd);
                    continue;
                }
                opened++;
            }
            char *p = buffer, *next;
            while ((next = strstr(p, "\n\n"))) {
                *next = 0;
                char *version = strstr(p, "\"version\":\""), *seq = strstr(p, "\"seq\":");
                if (version && seq) {
                    int number = atoi(version + 11);
                    if (number == s->last + 1) {
                        taken[samples++] = at - atol(seq + 6);
                    } else if (number > s->last) {
                        lost += number - s->last - 1;
                        taken[samples++] = at - atol(seq + 6);
                    } else if (number == s->last) {
                        doubled++;
                    } else {
                        disordered++;
                    }
                    if (number > s->last)
                        s->last = number;
                    if (number == events)
                        finished++;
                }
                p = next + 2;
            }
            size_t rest = buffer + got - p;
            if (rest < CARRY) {
                memcpy(s->carry, p, rest);
                s->carried = rest;
            }
        }
    }
    for (int i = 0; i < made; i++)
        if (all[i].open && all[i].last < events)
            lost += events - all[i].last;
    qsort(taken, samples, sizeof(long), by_value);
    printf("{\"delivered\":%ld,\"lost\":%ld,\"doubled\":%ld,\"disordered\":%ld,"
           "\"refused\":%ld,\"closed\":%ld,\"p50_us\":%ld,\"p99_us\":%ld,"
           "\"max_us\":%ld}\n",
           samples, lost, doubled, disordered, refused, closed,
           samples ? taken[samples / 2] : -1, samples ? taken[samples * 99 / 100] : -1,
           samples ? taken[samples - 1] : -1);
    return 0;
}
