/* A client of many connections in one thread. Prints one JSON object.
 *
 *   load -p PORT -c CONNECTIONS -d SECONDS [-w WARM_UP] [-r RATE] [-s EVENTS -i PAUSE_MS] [-k KEY] [-m MODEL] [-P PID,PID]
 *
 * Without -r every connection sends its next request when the last answer is complete (closed loop). With -r requests are
 * due at a constant rate whatever the answers do, and latency counts from when a request was due (open loop).
 * -s asks for event streams. -H opens the streams slowly and only holds them (memory of idle streams).
 * -P: CPU time (scheduler statistics of all threads) and resident memory of these processes over the measured window.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
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

enum { HEAD, SIZED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

typedef struct {
    int fd, busy, connected, part, status, last, first_seen, done_seen, usage_seen;
    size_t sent, kept;
    long left;
    char size_line[32], line[8192];
    int size_digits;
    uint64_t due;
} Link;

typedef struct { float *at; size_t n, room; } Samples;

static Link *links;
static Samples latency, first_byte, event_delay;
static char *request;
static size_t request_size;
static int poll_fd, port, connections = 1, events_wanted, pause_ms, hold, pids[64], pid_count;
static double seconds = 5, warm_up = 1, rate;
static uint64_t measure_from;
static long complete, refused, broken, streams_cut, usages, events;
static struct sockaddr_in address;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void note(Samples *s, uint64_t ns) {
    if (s->n == s->room) s->at = realloc(s->at, (s->room = s->room ? s->room * 2 : 65536) * sizeof *s->at);
    s->at[s->n++] = ns / 1000.0f;
}

static int by_value(const void *a, const void *b) { return *(float *)a < *(float *)b ? -1 : *(float *)a > *(float *)b; }

static double quantile(Samples *s, double q) { return s->n ? s->at[(size_t)(q * (s->n - 1))] : -1; }

static double cpu_seconds(void) {
    double total = 0;
    for (int i = 0; i < pid_count; i++) {
        char name[512];
        sprintf(name, "/proc/%d/task", pids[i]);
        DIR *tasks = opendir(name);
        struct dirent *task;
        while (tasks && (task = readdir(tasks))) {
            unsigned long long on_cpu;
            if (task->d_name[0] == '.') continue;
            sprintf(name, "/proc/%d/task/%.200s/schedstat", pids[i], task->d_name);
            FILE *f = fopen(name, "r");
            if (!f) continue;
            if (fscanf(f, "%llu", &on_cpu) == 1) total += on_cpu / 1e9;
            fclose(f);
        }
        if (tasks) closedir(tasks);
    }
    return total;
}

static long resident_kb(void) {
    long total = 0;
    for (int i = 0; i < pid_count; i++) {
        char name[64], text[256];
        sprintf(name, "/proc/%d/status", pids[i]);
        FILE *f = fopen(name, "r");
        while (f && fgets(text, sizeof text, f))
            if (!strncmp(text, "VmRSS:", 6)) total += atol(text + 6);
        if (f) fclose(f);
    }
    return total;
}

static void watch(Link *l, int writing) {
    struct epoll_event e = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = l};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, l->fd, &e);
}

static void open_link(Link *l) {
    int one = 1;
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    l->connected = connect(l->fd, (void *)&address, sizeof address) == 0;
    struct epoll_event e = {.events = EPOLLIN | (l->connected ? 0 : EPOLLOUT), .data.ptr = l};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, l->fd, &e);
}

static void push(Link *l) {
    if (!l->connected || l->sent == request_size) return;
    ssize_t n = write(l->fd, request + l->sent, request_size - l->sent);
    if (n > 0) l->sent += n;
    if (l->sent < request_size) watch(l, 1);
}

static void ask(Link *l, uint64_t due) {
    l->busy = 1;
    l->due = due;
    l->part = HEAD;
    l->sent = l->kept = 0;
    l->last = l->first_seen = l->done_seen = l->usage_seen = l->size_digits = 0;
    push(l);
}

static void reopen(Link *l) {
    epoll_ctl(poll_fd, EPOLL_CTL_DEL, l->fd, NULL);
    close(l->fd);
    l->busy = 0;
    open_link(l);
}

static void answered(Link *l, uint64_t at) {
    l->busy = 0;
    if (at >= measure_from) {
        complete++;
        refused += l->status != 200;
        streams_cut += events_wanted && !l->done_seen;
        usages += l->usage_seen;
        if (l->due >= measure_from) note(&latency, at - l->due);
    }
    if (l->last) reopen(l);
}

/* Event lines arrive cut anywhere: they are put together before they are read. */
static void stream_bytes(Link *l, const char *data, long size, uint64_t at) {
    if (!l->first_seen) {
        l->first_seen = 1;
        if (at >= measure_from && l->due >= measure_from) note(&first_byte, at - l->due);
    }
    while (size > 0) {
        const char *end = memchr(data, '\n', size);
        long n = end ? end - data + 1 : size;
        if (l->kept + n < sizeof l->line - 1) {
            memcpy(l->line + l->kept, data, n);
            l->kept += n;
        }
        data += n;
        size -= n;
        if (!end) return;
        l->line[l->kept] = 0;
        if (!strncmp(l->line, "data: [DONE]", 12)) l->done_seen = 1;
        else if (l->kept > 6) {
            char *stamp = strstr(l->line, "\" @");
            if (at >= measure_from) events++;
            if (stamp && at >= measure_from) {
                uint64_t written = strtoull(stamp + 3, NULL, 10) * 1000;
                note(&event_delay, at > written ? at - written : 0);
            } else if (strstr(l->line, "\"usage\":{")) l->usage_seen = 1;
        }
        l->kept = 0;
    }
}

static void body_bytes(Link *l, const char *data, long size, uint64_t at) {
    if (events_wanted) stream_bytes(l, data, size, at);
    else if (memmem(data, size, "\"usage\"", 7)) l->usage_seen = 1;
}

/* 1: the answer is complete, 0: more is to come, -1: not HTTP. */
static int read_head(Link *l, const char **data, long *size, uint64_t at) {
    long n = *size < (long)(sizeof l->line - 1 - l->kept) ? *size : (long)(sizeof l->line - 1 - l->kept);
    size_t before = l->kept;
    memcpy(l->line + before, *data, n);
    l->kept += n;
    l->line[l->kept] = 0;
    char *end = strstr(l->line, "\r\n\r\n");
    if (!end) {
        *data += n;
        *size -= n;
        return l->kept >= sizeof l->line - 1 ? -1 : 0;
    }
    long used = end + 4 - l->line - before;
    *data += used;
    *size -= used;
    l->status = atoi(l->line + 9);
    long length = -1;
    int chunks = 0;
    end[2] = 0;
    for (char *line = strstr(l->line, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, "content-length:", 15)) length = atol(line + 15);
        if (!strncasecmp(line, "transfer-encoding:", 18)) chunks = 1;
        if (!strncasecmp(line, "connection: close", 17)) l->last = 1;
    }
    l->kept = 0;
    l->part = chunks ? CHUNK_SIZE : SIZED;
    l->left = length;
    if (!chunks && length < 0) return -1;
    if (!chunks && !length) {
        answered(l, at);
        return 1;
    }
    return 0;
}

static int feed(Link *l, const char *data, long size, uint64_t at) {
    while (size > 0) {
        if (l->part == HEAD) {
            int got = read_head(l, &data, &size, at);
            if (got) return got;
        } else if (l->part == SIZED || l->part == CHUNK_DATA) {
            long n = size < l->left ? size : l->left;
            body_bytes(l, data, n, at);
            data += n;
            size -= n;
            l->left -= n;
            if (!l->left && l->part == SIZED) {
                answered(l, at);
                return 1;
            }
            if (!l->left) {
                l->part = CHUNK_END;
                l->left = 2;
            }
        } else if (l->part == CHUNK_END) {
            long n = size < l->left ? size : l->left;
            data += n;
            size -= n;
            l->left -= n;
            if (!l->left) l->part = CHUNK_SIZE;
        } else { /* a size or the line after the last chunk */
            const char *end = memchr(data, '\n', size);
            long n = end ? end - data + 1 : size;
            for (long i = 0; i < n && l->size_digits < 30; i++) l->size_line[l->size_digits++] = data[i];
            data += n;
            size -= n;
            if (!end) return 0;
            l->size_line[l->size_digits] = 0;
            l->size_digits = 0;
            if (l->part == TRAILER) {
                answered(l, at);
                return 1;
            }
            l->left = strtol(l->size_line, NULL, 16);
            l->part = l->left ? CHUNK_DATA : TRAILER;
        }
    }
    return 0;
}

static void make_request(const char *key, const char *model, const char *path) {
    char body[2048];
    int n = sprintf(body,
                    "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You answer in one paragraph.\"},{\"role\":"
                    "\"user\",\"content\":\"Why should a gateway in front of several inference servers add as little latency as "
                    "it can, and where does the time go in one that does not?\"}],\"temperature\":0.7,\"max_tokens\":%d,\"seed\":%d",
                    model, events_wanted ? events_wanted : 64, pause_ms);
    n += sprintf(body + n, events_wanted ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}" : "}");
    request = malloc(4096);
    request_size = sprintf(request,
                           "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n"
                           "Connection: keep-alive\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 2.8.0\r\n"
                           "X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 2.8.0\r\nX-Stainless-OS: Linux\r\n"
                           "X-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.11.7\r\n"
                           "X-Stainless-Async: false\r\nX-Stainless-Retry-Count: 0\r\nAuthorization: Bearer %s\r\n"
                           "Content-Length: %d\r\n\r\n%s",
                           path, port, key, n, body);
}

static void ready(Link *l, unsigned what) {
    static char data[262144];
    if ((what & EPOLLOUT) && !(what & (EPOLLERR | EPOLLHUP))) {
        l->connected = 1;
        watch(l, 0);
        if (l->busy) push(l);
    }
    if (!(what & (EPOLLIN | EPOLLERR | EPOLLHUP))) return;
    ssize_t n = read(l->fd, data, sizeof data);
    uint64_t at = now_ns();
    if (n < 0 && errno == EAGAIN) return;
    int got = n > 0 ? feed(l, data, n, at) : -1;
    if (got < 0) {
        if (l->busy && at >= measure_from) broken++;
        reopen(l);
    }
    if (got && !rate && !hold) ask(l, now_ns());
}

static void options(int count, char **argument) {
    const char *key = "", *model = "m", *path = "/v1/chat/completions";
    int o;
    while ((o = getopt(count, argument, "p:c:d:w:r:s:i:k:m:u:P:H")) > 0) switch (o) {
        case 'p': port = atoi(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 'd': seconds = atof(optarg); break;
        case 'w': warm_up = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 's': events_wanted = atoi(optarg); break;
        case 'i': pause_ms = atoi(optarg); break;
        case 'k': key = optarg; break;
        case 'm': model = optarg; break;
        case 'u': path = optarg; break;
        case 'H': hold = 1; break;
        case 'P':
            for (char *pid = strtok(optarg, ","); pid && pid_count < 64; pid = strtok(NULL, ",")) pids[pid_count++] = atoi(pid);
            break;
        default: exit(2);
        }
    make_request(key, model, path);
}

static void report(double elapsed, double cpu, long before_kb) {
    long open_streams = 0;
    for (int i = 0; i < connections; i++) open_streams += links[i].busy && links[i].first_seen;
    Samples *all[] = {&latency, &first_byte, &event_delay};
    for (int i = 0; i < 3; i++) qsort(all[i]->at, all[i]->n, sizeof(float), by_value);
    printf("{\"requests_per_s\":%.1f,\"complete\":%ld,\"not_200\":%ld,\"broken\":%ld,\"usages\":%ld,\"cpu_us_per_request\":%.2f,"
           "\"core_percent\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"before_kb\":%ld,\"resident_kb\":%ld",
           complete / elapsed, complete, refused, broken, usages, complete ? cpu * 1e6 / complete : -1, 100 * cpu / elapsed,
           quantile(&latency, .5), quantile(&latency, .9), quantile(&latency, .99), before_kb, resident_kb());
    if (events_wanted)
        printf(",\"events_per_s\":%.0f,\"cpu_us_per_event\":%.2f,\"first_byte_p50_us\":%.1f,\"first_byte_p99_us\":%.1f,"
               "\"event_delay_p50_us\":%.1f,\"event_delay_p99_us\":%.1f,\"streams_cut\":%ld,\"open_streams\":%ld",
               events / elapsed, events ? cpu * 1e6 / events : -1, quantile(&first_byte, .5), quantile(&first_byte, .99),
               quantile(&event_delay, .5), quantile(&event_delay, .99), streams_cut, open_streams);
    printf("}\n");
}

int main(int count, char **argument) {
    signal(SIGPIPE, SIG_IGN);
    options(count, argument);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    poll_fd = epoll_create1(0);
    links = calloc(connections, sizeof *links);
    long before_kb = resident_kb();
    uint64_t start = now_ns(), end, due = start, period = rate > 0 ? 1e9 / rate : 0, measured_at = 0;
    measure_from = start + warm_up * 1e9;
    end = measure_from + seconds * 1e9;
    double cpu_before = 0;
    int opened = 0, next = 0, gradual = hold || (events_wanted && pause_ms);
    uint64_t opening = hold ? 400000 : gradual ? pause_ms * 1000000ull / connections : 0;
    struct epoll_event ready_now[1024];
    for (;;) {
        uint64_t t = now_ns();
        if (!measured_at && t >= measure_from) {
            measured_at = t;
            cpu_before = cpu_seconds();
        }
        if (t >= end) break;
        while (opened < connections && t >= start + opened * opening) {
            open_link(&links[opened]);
            if (!rate) ask(&links[opened], now_ns());
            opened++;
        }
        while (rate > 0 && due <= t) {
            int found = -1;
            for (int k = 0; k < connections && found < 0; k++) {
                int at = (next + k) % connections;
                if (!links[at].busy && links[at].connected) found = at;
            }
            if (found < 0) break;
            next = found + 1;
            ask(&links[found], due);
            due += period;
        }
        uint64_t wait = opened < connections ? 200000 : 20000000, late = now_ns();
        if (rate > 0) wait = due > late ? (due - late < wait ? due - late : wait) : 50000;
        struct timespec pause = {0, wait};
        int n = epoll_pwait2(poll_fd, ready_now, 1024, &pause, NULL);
        for (int i = 0; i < n; i++) ready(ready_now[i].data.ptr, ready_now[i].events);
    }
    double cpu = cpu_seconds() - cpu_before;
    report((now_ns() - measured_at) / 1e9, cpu, before_kb);
    return 0;
}
