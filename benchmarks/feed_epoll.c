/* SPDX-License-Identifier: Apache-2.0 */
/* The limit: a feed server in C that does nothing but fan out.
 *
 * GET anything: the connection becomes a stream. POST: the body, which must come
 * with the head, is written to every stream. One thread, epoll, no TLS, no log.
 * usage: feed_epoll; prints its port.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536

static int streams[MOST];
static int count;

static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                           "transfer-encoding: chunked\r\n\r\n";
static const char DONE[] = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";

static void broadcast(const char *data, size_t size)
{
    static char frame[1 << 20];
    int head = sprintf(frame, "%zx\r\n", size);
    memcpy(frame + head, data, size);
    memcpy(frame + head + size, "\r\n", 2);
    for (int i = 0; i < count; i++)
        if (send(streams[i], frame, head + size + 2, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            perror("send");
}

int main(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096))
        return perror("listen"), 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(poll, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                int on = 1, made = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (made < 0)
                    continue;
                setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                event.data.fd = made;
                epoll_ctl(poll, EPOLL_CTL_ADD, made, &event);
                continue;
            }
            static char buffer[1 << 16];
            ssize_t got = recv(fd, buffer, sizeof buffer - 1, 0);
            if (got <= 0) {
                for (int k = 0; k < count; k++)
                    if (streams[k] == fd)
                        streams[k] = streams[--count];
                close(fd);
                continue;
            }
            buffer[got] = 0;
            if (!strncmp(buffer, "GET ", 4)) {
                send(fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL);
                streams[count++] = fd;
            } else if (!strncmp(buffer, "POST ", 5)) {
                char *body = strstr(buffer, "\r\n\r\n");
                if (body)
                    broadcast(body + 4, buffer + got - body - 4);
                send(fd, DONE, sizeof DONE - 1, MSG_NOSIGNAL);
            }
        }
    }
}
