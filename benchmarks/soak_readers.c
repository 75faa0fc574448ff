/* SPDX-License-Identifier: Apache-2.0 */
/* A part of a fleet for hours: streams that break, come back, or read slowly.
 *
 * Events carry `"version":"N"`, their number from 1 on, by channel: large ones have
 * `"channel":"large"`. Each stream must get each number of its channels once and in
 * order, however often it breaks; it comes back with its cursor, after its `retry:`
 * when the server ended it, and after Retry-After when it was refused.
 * usage: soak_readers PORT STREAMS SLOW CONNECTS_PER_S BREAKS_PER_S SOURCE QUERY
 * The first SLOW streams want all channels, and read for some seconds, then not for
 * up to two minutes. The others ask with QUERY, and BREAKS_PER_S of them hang up.
 * Each line of input is answered with a line of JSON. After "end SMALL LARGE" nobody
 * hangs up or sleeps, and the answer comes when all have the last numbers, or after
 * 150 s; streams that lack any then have lost them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AWAY, CONNECTING, ASKED, OPEN };

struct stream {
    int fd, last[2], retry_ms, carried, slow;
    char state, awake, ended;
    char cursor[64];
    char *carry;
};

static long lost, doubled, disordered, refused, resyncs, breaks, ends, opened, taken;
static int streams, slow, open_now, poll_fd;
static struct stream *all;
static long *due; /* milliseconds; of AWAY ones to connect, of slow ones to turn */
static struct sockaddr_in address, source;
static const char *query;

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000L + t.tv_nsec / 1000000;
}

static long between(long least, long most)
{
    return least + random() % (most - least + 1);
}

static void watch(int n, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.u32 = n};
    epoll_ctl(poll_fd, operation, all[n].fd, &event);
}

static void hang_up(int n, long again_ms)
{
    struct stream *s = &all[n];
    if (s->state == OPEN)
        open_now--;
    close(s->fd);
    free(s->carry);
    s->carry = NULL;
    s->carried = 0;
    s->state = AWAY;
    due[n] = now_ms() + again_ms;
}

static void dial(int n)
{
    struct stream *s = &all[n];
    int late = 1, little = 4096;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (s->fd < 0) {
        perror("socket");
        exit(1);
    }
    if (s->slow)
        setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    setsockopt(s->fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &late, sizeof late);
    if (bind(s->fd, (struct sockaddr *)&source, sizeof source) ||
        (connect(s->fd, (struct sockaddr *)&address, sizeof address) &&
         errno != EINPROGRESS)) {
        close(s->fd);
        refused++;
        due[n] = now_ms() + between(1000, 3000);
        return;
    }
    s->state = CONNECTING;
    due[n] = 0;
    watch(n, EPOLL_CTL_ADD, EPOLLOUT);
}

static void ask(int n)
{
    struct stream *s = &all[n];
    char request[512];
    int size = snprintf(request, sizeof request,
                        "GET /v1/events%s HTTP/1.1\r\nHost: localhost\r\n"
                        "Accept: text/event-stream\r\n%s%s%s\r\n",
                        s->slow ? "?product=acme" : query, *s->cursor ? "Last-Event-ID: " : "",
                        s->cursor, *s->cursor ? "\r\n" : "");
    if (send(s->fd, request, size, MSG_NOSIGNAL) != size) {
        refused++;
        hang_up(n, between(1000, 3000));
        return;
    }
    s->state = ASKED;
    s->awake = 1;
    watch(n, EPOLL_CTL_MOD, EPOLLIN);
}

static void count(struct stream *s, char *block)
{
    char *at, *end;
    if ((at = strstr(block, "retry: ")))
        s->retry_ms = atoi(at + 7);
    if (strstr(block, "event: resync"))
        resyncs++;
    if ((at = strstr(block, "\"version\":\""))) {
        int *last = &s->last[strstr(block, "\"channel\":\"large\"") != NULL];
        int number = atoi(at + 11);
        taken++;
        if (number > *last) {
            lost += number - *last - 1;
            *last = number;
        } else if (number == *last)
            doubled++;
        else
            disordered++;
    }
    if ((at = strstr(block, "id: ")) && (end = strchr(at, '\n')) &&
        end - at - 4 < (long)sizeof s->cursor) {
        memcpy(s->cursor, at + 4, end - at - 4);
        s->cursor[end - at - 4] = 0;
    }
}

static void take(int n)
{
    static char buffer[(1 << 20) + 1];
    struct stream *s = &all[n];
    memcpy(buffer, s->carry ? s->carry : "", s->carried);
    ssize_t got = recv(s->fd, buffer + s->carried, (1 << 18), 0);
    if (got <= 0) {
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        ends++;
        hang_up(n, s->state == OPEN && got == 0 ? s->retry_ms : between(1000, 3000));
        return;
    }
    got += s->carried;
    s->carried = 0;
    buffer[got] = 0;
    char *p = buffer, *next;
    if (s->state == ASKED) {
        if (!(next = strstr(buffer, "\r\n\r\n")))
            goto keep;
        if (strncmp(buffer, "HTTP/1.1 200", 12)) {
            char *after = strcasestr(buffer, "retry-after: ");
            refused++;
            hang_up(n, after ? atol(after + 13) * 1000 : between(1000, 3000));
            return;
        }
        s->state = OPEN;
        opened++;
        open_now++;
        if (s->slow)
            due[n] = now_ms() + between(2000, 8000);
    }
    while ((next = strstr(p, "\n\n"))) {
        *next = 0;
        count(s, p);
        p = next + 2;
    }
keep:
    s->carried = buffer + got - p;
    free(s->carry);
    s->carry = NULL;
    if (s->carried > 1 << 19) {
        fprintf(stderr, "a block of more than 512 KiB\n");
        exit(1);
    }
    if (s->carried) {
        s->carry = malloc(s->carried);
        memcpy(s->carry, p, s->carried);
    }
}

static void turn(int n, int ending)
{
    struct stream *s = &all[n];
    if (s->state != OPEN)
        return;
    s->awake = ending ? 1 : !s->awake;
    watch(n, EPOLL_CTL_MOD, s->awake ? EPOLLIN : 0);
    due[n] = ending      ? 0
             : s->awake ? now_ms() + between(2000, 8000)
                        : now_ms() + between(10000, 120000);
}

static int lacking(int small, int large)
{
    int those = 0;
    for (int n = 0; n < streams; n++)
        those += all[n].last[0] < small || (all[n].slow && all[n].last[1] < large);
    return those;
}

int main(int argc, char **argv)
{
    if (argc < 8)
        return 2;
    streams = atoi(argv[2]), slow = atoi(argv[3]), query = argv[7];
    int rate = atoi(argv[4]), churn = atoi(argv[5]), small = 0, large = 0;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    all = calloc(streams, sizeof *all);
    due = calloc(streams, sizeof *due);
    address = (struct sockaddr_in){.sin_family = AF_INET};
    address.sin_port = htons(atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    source = (struct sockaddr_in){.sin_family = AF_INET};
    inet_pton(AF_INET, argv[6], &source.sin_addr);
    srandom(source.sin_addr.s_addr);
    poll_fd = epoll_create1(0);
    long began = now_ms(), ended = 0, broken = 0;
    for (int n = 0; n < streams; n++) {
        all[n].slow = n < slow;
        all[n].retry_ms = 3000;
        due[n] = began + 1 + n * 1000L / rate;
    }
    struct epoll_event ready[512];
    char line[256];
    for (;;) {
        int got = epoll_wait(poll_fd, ready, 512, 50);
        for (int i = 0; i < got; i++) {
            int n = ready[i].data.u32;
            if (all[n].state == CONNECTING)
                ask(n);
            else if (all[n].state != AWAY)
                take(n);
        }
        long now = now_ms();
        for (int n = 0; n < streams; n++)
            if (due[n] && due[n] <= now) {
                if (all[n].state == AWAY)
                    dial(n);
                else
                    turn(n, ended != 0);
            }
        while (!ended && opened >= streams && broken < (now - began) * churn / 1000) {
            int n = slow + random() % (streams - slow);
            broken++;
            if (all[n].state != OPEN)
                continue;
            breaks++;
            hang_up(n, between(0, 5000));
        }
        if (opened < streams)
            broken = (now - began) * churn / 1000;
        struct pollfd input = {.fd = 0, .events = POLLIN};
        if (!ended && poll(&input, 1, 0) > 0) {
            ssize_t size = read(0, line, sizeof line - 1);
            if (size <= 0)
                return 0;
            line[size] = 0;
            if (sscanf(line, "end %d %d", &small, &large) == 2) {
                ended = now;
                for (int n = 0; n < slow; n++)
                    turn(n, 1);
                continue;
            }
        } else if (!ended || (lacking(small, large) && now - ended < 150000))
            continue;
        if (ended)
            for (int n = 0; n < streams; n++) {
                lost += small - all[n].last[0];
                lost += all[n].slow ? large - all[n].last[1] : 0;
            }
        printf("{\"open\":%d,\"opened\":%ld,\"taken\":%ld,\"lost\":%ld,\"doubled\":%ld,"
               "\"disordered\":%ld,\"resyncs\":%ld,\"refused\":%ld,\"breaks\":%ld,"
               "\"ends\":%ld}\n",
               open_now, opened, taken, lost, doubled, disordered, resyncs, refused,
               breaks, ends);
        fflush(stdout);
        if (ended)
            return 0;
    }
}
