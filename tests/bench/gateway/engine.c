/* A stand-in for an engine: answers chats at once or as a paced event stream, on several ports, in one thread.
 *
 *   engine PORT [PORT ...]
 *
 * "max_tokens" of the request is the number of events, "seed" the pause between them in milliseconds (0: none).
 * Every event carries the time at which it was written (CLOCK_MONOTONIC, microseconds), for a reader on this machine.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WHEEL 4096
#define MAX_FD 65536
#define ROOM 65536

typedef struct Peer {
    int fd, listener;
    char *in;
    size_t used, room;
    char *out; /* what the socket did not take */
    size_t out_used, out_sent;
    int streaming, events_left, events_sent, pause_ms;
    struct Peer *next, **back; /* place in the wheel */
} Peer;

static Peer *peers[MAX_FD];
static Peer *wheel[WHEEL];
static int poll_fd;
static char whole[2048];
static size_t whole_size;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static void unlink_peer(Peer *p) {
    if (!p->back) return;
    *p->back = p->next;
    if (p->next) p->next->back = p->back;
    p->back = NULL;
    p->next = NULL;
}

static void link_peer(Peer *p, uint64_t due_ms) {
    Peer **slot = &wheel[due_ms % WHEEL];
    p->next = *slot;
    if (p->next) p->next->back = &p->next;
    p->back = slot;
    *slot = p;
}

static void drop(Peer *p) {
    unlink_peer(p);
    peers[p->fd] = NULL;
    close(p->fd);
    free(p->in);
    free(p->out);
    free(p);
}

static int put(Peer *p, const char *data, size_t size) {
    ssize_t sent = 0;
    if (!p->out_used) {
        sent = write(p->fd, data, size);
        if (sent < 0 && errno != EAGAIN) return -1;
        if (sent < 0) sent = 0;
    }
    if ((size_t)sent == size) return 0;
    size_t left = size - sent;
    p->out = realloc(p->out, p->out_used + left);
    memcpy(p->out + p->out_used, data + sent, left);
    p->out_used += left;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.fd = p->fd};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, p->fd, &e);
    return 0;
}

static size_t chunk(char *to, const char *event) { return sprintf(to, "%zx\r\n%s\r\n", strlen(event), event); }

#define EVENT "data: {\"id\":\"chatcmpl-0001\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"m\","

/* One step of a stream. -1: the client is gone. */
static int step(Peer *p) {
    char event[1024], frame[4096];
    size_t n = 0;
    if (!p->events_sent)
        n += sprintf(frame, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                            "transfer-encoding: chunked\r\n\r\n");
    if (p->events_left > 0) {
        sprintf(event, EVENT "\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\" @%016llu\"},\"finish_reason\":null}]}\n\n",
                p->events_sent ? "" : "\"role\":\"assistant\",", (unsigned long long)now_us());
        n += chunk(frame + n, event);
        p->events_left--;
        p->events_sent++;
    } else {
        n += chunk(frame + n, EVENT "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
        sprintf(event, EVENT "\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
                p->events_sent, p->events_sent + 40);
        n += chunk(frame + n, event);
        n += chunk(frame + n, "data: [DONE]\n\n");
        n += sprintf(frame + n, "0\r\n\r\n");
        p->streaming = 0;
    }
    return put(p, frame, n);
}

static long number_after(const char *in, size_t size, const char *name, long otherwise) {
    const char *at = memmem(in, size, name, strlen(name));
    if (!at) return otherwise;
    at += strlen(name);
    while (*at == ':' || *at == ' ') at++;
    return strtol(at, NULL, 10);
}

static int begin(Peer *p, const char *body, size_t size) {
    if (!memmem(body, size, "\"stream\":true", 13)) return put(p, whole, whole_size);
    p->streaming = 1;
    p->events_sent = 0;
    p->events_left = number_after(body, size, "\"max_tokens\"", 16);
    p->pause_ms = number_after(body, size, "\"seed\"", 0);
    if (step(p) < 0) return -1;
    while (p->streaming && !p->pause_ms)
        if (step(p) < 0) return -1;
    if (p->streaming) link_peer(p, now_us() / 1000 + p->pause_ms);
    return 0;
}

/* Requests that have arrived whole. A GET is answered like a chat: that is all a health check asks. */
static int requests(Peer *p) {
    while (!p->streaming && p->used) {
        char *end = memmem(p->in, p->used, "\r\n\r\n", 4);
        if (!end) return 0;
        size_t head = end - p->in + 4, length = 0;
        for (char *line = p->in; line < end; line = (char *)memchr(line, '\n', end + 2 - line) + 1)
            if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, NULL, 10);
        if (!length && memmem(p->in, head, "chunked", 7)) { /* one chunk, as clients in this rig send it */
            char *size_end = NULL;
            size_t size = strtoul(p->in + head, &size_end, 16);
            char *body = size_end + 2;
            size_t total = body - p->in + size + 7;
            if (p->used < total) return 0;
            if (begin(p, body, size) < 0) return -1;
            memmove(p->in, p->in + total, p->used - total);
            p->used -= total;
            continue;
        }
        if (p->used < head + length) return 0;
        if (begin(p, p->in + head, length) < 0) return -1;
        memmove(p->in, p->in + head + length, p->used - head - length);
        p->used -= head + length;
    }
    return 0;
}

static void readable(Peer *p) {
    if (p->room - p->used < ROOM / 8) {
        p->room = p->room ? p->room * 2 : 4096;
        p->in = realloc(p->in, p->room + 1);
    }
    ssize_t got = read(p->fd, p->in + p->used, p->room - p->used);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        drop(p);
        return;
    }
    if (got > 0) {
        p->used += got;
        p->in[p->used] = 0;
        if (requests(p) < 0) drop(p);
    }
}

static int writable(Peer *p) {
    ssize_t sent = write(p->fd, p->out + p->out_sent, p->out_used - p->out_sent);
    if (sent < 0 && errno != EAGAIN) return -1;
    if (sent > 0) p->out_sent += sent;
    if (p->out_sent == p->out_used) {
        p->out_sent = p->out_used = 0;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = p->fd};
        epoll_ctl(poll_fd, EPOLL_CTL_MOD, p->fd, &e);
    }
    return 0;
}

static void take(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Peer *p = calloc(1, sizeof *p);
        p->fd = fd;
        peers[fd] = p;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static void listen_on(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&at, sizeof at) || listen(fd, 8192)) {
        perror("listen");
        exit(1);
    }
    Peer *p = calloc(1, sizeof *p);
    p->fd = fd;
    p->listener = 1;
    peers[fd] = p;
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e);
}

static void turn_wheel(uint64_t from_ms, uint64_t to_ms) {
    for (uint64_t ms = from_ms; ms <= to_ms; ms++) {
        Peer *due = wheel[ms % WHEEL];
        wheel[ms % WHEEL] = NULL;
        if (due) due->back = &due;
        while (due) {
            Peer *p = due;
            unlink_peer(p);
            if (step(p) < 0) drop(p);
            else if (p->streaming) link_peer(p, to_ms + p->pause_ms % WHEEL);
            else if (requests(p) < 0) drop(p);
        }
    }
}

int main(int count, char **argument) {
    signal(SIGPIPE, SIG_IGN);
    poll_fd = epoll_create1(0);
    for (int i = 1; i < count; i++) listen_on(atoi(argument[i]));
    const char *body =
        "{\"id\":\"chatcmpl-0001\",\"object\":\"chat.completion\",\"created\":1790000000,\"model\":\"m\",\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"A proxy that adds a tenth of a millisecond is one that nobody "
        "notices: what a person waits for is the model, and what an operator pays for is the GPU. This sentence only brings "
        "the answer to the size that short chats have.\",\"refusal\":null,\"tool_calls\":[],\"reasoning_content\":null},"
        "\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null}],\"service_tier\":null,\"system_fingerprint\":null,"
        "\"usage\":{\"prompt_tokens\":40,\"total_tokens\":88,\"completion_tokens\":48,\"prompt_tokens_details\":null}}";
    whole_size = sprintf(whole, "HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
                                "content-length: %zu\r\ncontent-type: application/json\r\n\r\n%s", strlen(body), body);
    uint64_t turned = now_us() / 1000;
    struct epoll_event events[512];
    for (;;) {
        int n = epoll_wait(poll_fd, events, 512, 1);
        for (int i = 0; i < n; i++) {
            Peer *p = peers[events[i].data.fd];
            if (!p) continue;
            if (p->listener) take(p->fd);
            else if ((events[i].events & EPOLLOUT) && writable(p) < 0) drop(p);
            else if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(p);
        }
        uint64_t now = now_us() / 1000;
        if (now > turned) {
            turn_wheel(now - turned > WHEEL - 1 ? now - WHEEL + 1 : turned + 1, now);
            turned = now;
        }
    }
}
