/* A hello server in one file of C: the smallest thing that a pod can run.
 *
 * HTTP/1.1 with keep-alive, one small thread per connection, no library but libc. It is the demo's service and
 * the end-to-end tests' instrument, so each path exists to make something visible:
 *
 *   /            "Hello TARGET!"              /id         HOSTNAME and K_REVISION, two lines
 *   /env         the whole environment        /sleep?ms=N answers after N ms
 *   /bytes?n=N   N bytes of 'x'               /exit?code=N  ends the process
 *   /echo        the request's body           /sse?n=N&ms=M N events, M ms apart (default 5, 200)
 *   /healthz     "ok"                         /burn?ms=N  uses a CPU for N ms
 *
 * SIGTERM: stop listening, answer what is running, then exit 0.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { HEAD_MAX = 32 * 1024, CHUNK = 16 * 1024, STACK = 128 * 1024 };
#define BODY_MAX (1024LL * 1024 * 1024 * 1024)

static int listener = -1;
static volatile sig_atomic_t stopping = 0;
static int stop_pipe[2];
static int running = 0; /* conversations, from accept to the last answer */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

typedef struct {
    int fd;
    char buffer[HEAD_MAX + 1];
    size_t have; /* bytes in buffer */
    size_t used; /* of these, already read by somebody */
} Connection;

typedef struct {
    char method[16];
    char path[2048];
    char query[2048];
    int keep_alive;
    int chunked;
    int expect_continue;
    long long length; /* body bytes not yet read; of a chunked body: of the current chunk */
    int done;         /* chunked: the last chunk was read */
} Request;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static int send_all(int fd, const char *data, size_t size) {
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int send_text(int fd, const char *format, ...) {
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return size < 0 || (size_t)size >= sizeof text ? -1 : send_all(fd, text, (size_t)size);
}

static void sleep_ms(long long ms) {
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* The number after "name=" in the query, between 0 and max. */
static long long number(const Request *request, const char *name, long long otherwise, long long max) {
    size_t size = strlen(name);
    for (const char *at = request->query; at; at = strchr(at, '&')) {
        if (*at == '&') at++;
        if (strncmp(at, name, size) == 0 && at[size] == '=') {
            long long value = strtoll(at + size + 1, NULL, 10);
            return value < 0 ? 0 : value > max ? max : value;
        }
    }
    return otherwise;
}

/* More bytes into the buffer; between requests, SIGTERM ends the wait. 1 = got some, 0 = end, -1 = error. */
static int fill(Connection *connection, int between) {
    if (connection->used == connection->have) connection->used = connection->have = 0;
    if (connection->have == HEAD_MAX) {
        if (connection->used == 0) return -1;
        memmove(connection->buffer, connection->buffer + connection->used, connection->have - connection->used);
        connection->have -= connection->used;
        connection->used = 0;
    }
    if (between) {
        struct pollfd wait[2] = {{connection->fd, POLLIN, 0}, {stop_pipe[0], POLLIN, 0}};
        while (poll(wait, 2, -1) < 0)
            if (errno != EINTR) return -1;
        if (!wait[0].revents) return 0;
    }
    ssize_t got;
    do {
        got = recv(connection->fd, connection->buffer + connection->have, HEAD_MAX - connection->have, 0);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) return got < 0 ? -1 : 0;
    connection->have += (size_t)got;
    return 1;
}

/* One line without its end, as a string inside the buffer; NULL at the end of input. */
static char *read_line(Connection *connection, int first) {
    size_t seen = 0;
    for (;;) {
        char *start = connection->buffer + connection->used;
        char *end = memchr(start + seen, '\n', connection->have - connection->used - seen);
        if (end) {
            connection->used = (size_t)(end - connection->buffer) + 1;
            *end = 0;
            if (end > start && end[-1] == '\r') end[-1] = 0;
            return start;
        }
        seen = connection->have - connection->used;
        if (seen >= HEAD_MAX) return NULL;
        if (fill(connection, first && seen == 0) <= 0) return NULL;
    }
}

static int has_word(const char *value, const char *word) {
    return strcasestr(value, word) != NULL;
}

static int read_head(Connection *connection, Request *request) {
    memset(request, 0, sizeof *request);
    char *line = read_line(connection, 1);
    if (line && !*line) line = read_line(connection, 1);
    if (!line) return 0;
    char target[sizeof request->path + sizeof request->query];
    char version[16];
    if (sscanf(line, "%15s %4095s %15s", request->method, target, version) != 3) return -1;
    request->keep_alive = strcmp(version, "HTTP/1.0") != 0;
    char *query = strchr(target, '?');
    if (query) {
        *query++ = 0;
        snprintf(request->query, sizeof request->query, "%.*s", (int)sizeof request->query - 1, query);
    }
    snprintf(request->path, sizeof request->path, "%.*s", (int)sizeof request->path - 1, target);
    for (;;) {
        line = read_line(connection, 0);
        if (!line) return -1;
        if (!*line) {
            if (request->chunked) request->length = 0;
            return 1;
        }
        char *value = strchr(line, ':');
        if (!value) return -1;
        *value++ = 0;
        while (*value == ' ' || *value == '\t') value++;
        if (strcasecmp(line, "content-length") == 0) {
            if (!isdigit((unsigned char)*value)) return -1;
            errno = 0;
            request->length = strtoll(value, NULL, 10);
            if (errno || request->length > BODY_MAX) return -1;
        } else if (strcasecmp(line, "transfer-encoding") == 0) {
            if (!has_word(value, "chunked")) return -1;
            request->chunked = 1;
        } else if (strcasecmp(line, "connection") == 0) {
            if (has_word(value, "close")) request->keep_alive = 0;
            if (has_word(value, "keep-alive")) request->keep_alive = 1;
        } else if (strcasecmp(line, "expect") == 0) {
            request->expect_continue = has_word(value, "100-continue");
        }
    }
}

/* Some bytes of the body, in place. 0 = end of body, -1 = error. */
static ssize_t read_body(Connection *connection, Request *request, char **data) {
    if (request->expect_continue) {
        request->expect_continue = 0;
        if (send_text(connection->fd, "HTTP/1.1 100 Continue\r\n\r\n") < 0) return -1;
    }
    if (request->chunked && request->length == 0) {
        if (request->done) return 0;
        char *line = read_line(connection, 0);
        if (line && !*line) line = read_line(connection, 0); /* the end of the chunk before */
        if (!line || !isxdigit((unsigned char)*line)) return -1;
        errno = 0;
        request->length = strtoll(line, NULL, 16);
        if (errno || request->length < 0 || request->length > BODY_MAX) return -1;
        if (request->length == 0) {
            request->done = 1;
            while ((line = read_line(connection, 0)) && *line) {
            }
            return line ? 0 : -1;
        }
    }
    if (request->length == 0) return 0;
    if (connection->used == connection->have && fill(connection, 0) <= 0) return -1;
    size_t size = connection->have - connection->used;
    if ((long long)size > request->length) size = (size_t)request->length;
    *data = connection->buffer + connection->used;
    connection->used += size;
    request->length -= (long long)size;
    return (ssize_t)size;
}

static int drain(Connection *connection, Request *request) {
    char *data;
    ssize_t got;
    if (request->expect_continue) { /* the client still waits for leave to send: it never will */
        request->keep_alive = 0;
        return 0;
    }
    while ((got = read_body(connection, request, &data)) > 0) {
    }
    return got < 0 ? -1 : 0;
}

static const char *connection_header(const Request *request) {
    return request->keep_alive && !stopping ? "keep-alive" : "close";
}

static int answer_head(Connection *connection, const Request *request, const char *status, const char *type,
                       long long size) {
    return send_text(connection->fd,
                     "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %lld\r\nConnection: %s\r\n\r\n", status,
                     type, size, connection_header(request));
}

static int answer(Connection *connection, const Request *request, const char *status, const char *text) {
    char whole[8192];
    size_t size = strlen(text);
    int head = snprintf(whole, sizeof whole,
                        "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
                        "Connection: %s\r\n\r\n",
                        status, size, connection_header(request));
    int without_body = strcmp(request->method, "HEAD") == 0;
    if ((size_t)head + size < sizeof whole) { /* one packet */
        memcpy(whole + head, text, size);
        return send_all(connection->fd, whole, (size_t)head + (without_body ? 0 : size));
    }
    if (send_all(connection->fd, whole, (size_t)head) < 0) return -1;
    return without_body ? 0 : send_all(connection->fd, text, size);
}

static int answer_bytes(Connection *connection, const Request *request) {
    long long size = number(request, "n", 0, BODY_MAX);
    char block[CHUNK];
    memset(block, 'x', sizeof block);
    if (answer_head(connection, request, "200 OK", "application/octet-stream", size) < 0) return -1;
    if (strcmp(request->method, "HEAD") == 0) return 0;
    for (; size > 0; size -= CHUNK)
        if (send_all(connection->fd, block, size < CHUNK ? (size_t)size : CHUNK) < 0) return -1;
    return 0;
}

static int answer_env(Connection *connection, const Request *request) {
    size_t size = 0;
    for (char **entry = environ; *entry; entry++) size += strlen(*entry) + 1;
    char *text = malloc(size + 1);
    if (!text) return -1;
    char *at = text;
    for (char **entry = environ; *entry; entry++) at += sprintf(at, "%s\n", *entry);
    *at = 0;
    int result = answer(connection, request, "200 OK", text);
    free(text);
    return result;
}

static int answer_echo(Connection *connection, Request *request) {
    char *data;
    ssize_t got;
    if (request->chunked) {
        if (send_text(connection->fd,
                      "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n"
                      "Connection: %s\r\n\r\n",
                      connection_header(request)) < 0)
            return -1;
        while ((got = read_body(connection, request, &data)) > 0)
            if (send_text(connection->fd, "%zx\r\n", (size_t)got) < 0 ||
                send_all(connection->fd, data, (size_t)got) < 0 || send_text(connection->fd, "\r\n") < 0)
                return -1;
        return got < 0 ? -1 : send_text(connection->fd, "0\r\n\r\n");
    }
    if (answer_head(connection, request, "200 OK", "application/octet-stream", request->length) < 0) return -1;
    while ((got = read_body(connection, request, &data)) > 0)
        if (send_all(connection->fd, data, (size_t)got) < 0) return -1;
    return got < 0 ? -1 : 0;
}

static int answer_events(Connection *connection, Request *request) {
    long long count = number(request, "n", 5, 1000000), pause = number(request, "ms", 200, 600000);
    request->keep_alive = 0;
    if (send_text(connection->fd,
                  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                  "Connection: close\r\n\r\n") < 0)
        return -1;
    for (long long event = 0; event < count; event++) {
        if (event) sleep_ms(pause);
        if (send_text(connection->fd, "id: %lld\ndata: event %lld\n\n", event, event) < 0) return -1;
    }
    return 0;
}

static int serve(Connection *connection, Request *request) {
    char text[4096];
    const char *path = request->path;
    if (strcmp(path, "/echo") == 0) return answer_echo(connection, request);
    if (drain(connection, request) < 0) return -1;
    if (strcmp(path, "/") == 0) {
        snprintf(text, sizeof text, "Hello %.3000s!\n", setting("TARGET", "World"));
        return answer(connection, request, "200 OK", text);
    }
    if (strcmp(path, "/healthz") == 0) return answer(connection, request, "200 OK", "ok\n");
    if (strcmp(path, "/id") == 0) {
        char host[256] = "";
        gethostname(host, sizeof host - 1);
        snprintf(text, sizeof text, "%.255s\n%.1000s\n", setting("HOSTNAME", host), setting("K_REVISION", ""));
        return answer(connection, request, "200 OK", text);
    }
    if (strcmp(path, "/env") == 0) return answer_env(connection, request);
    if (strcmp(path, "/bytes") == 0) return answer_bytes(connection, request);
    if (strcmp(path, "/sse") == 0) return answer_events(connection, request);
    if (strcmp(path, "/sleep") == 0) {
        long long ms = number(request, "ms", 0, 3600000);
        sleep_ms(ms);
        snprintf(text, sizeof text, "slept %lld ms\n", ms);
        return answer(connection, request, "200 OK", text);
    }
    if (strcmp(path, "/burn") == 0) {
        long long ms = number(request, "ms", 0, 3600000), end = now_ms() + ms;
        while (now_ms() < end) {
        }
        snprintf(text, sizeof text, "burnt %lld ms\n", ms);
        return answer(connection, request, "200 OK", text);
    }
    if (strcmp(path, "/exit") == 0) {
        request->keep_alive = 0;
        answer(connection, request, "200 OK", "exiting\n");
        shutdown(connection->fd, SHUT_WR);
        _exit((int)number(request, "code", 0, 255));
    }
    return answer(connection, request, "404 Not Found", "not found\n");
}

static void count(int change) {
    pthread_mutex_lock(&lock);
    running += change;
    pthread_mutex_unlock(&lock);
}

static void *converse(void *argument) {
    Connection *connection = argument;
    Request *request = malloc(sizeof *request);
    int one = 1, more = request != NULL;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (more) {
        int got = read_head(connection, request);
        if (got == 0) break;
        if (got < 0) {
            request->keep_alive = more = 0;
            answer(connection, request, "400 Bad Request", "bad request\n");
        } else {
            more = serve(connection, request) == 0 && request->keep_alive && !stopping;
        }
    }
    count(-1);
    /* Half-close and take what is left, so that the peer gets our last bytes and not a reset. */
    shutdown(connection->fd, SHUT_WR);
    struct timeval patience = {1, 0};
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (int tries = 0; tries < 64 && recv(connection->fd, connection->buffer, HEAD_MAX, 0) > 0; tries++) {
    }
    close(connection->fd);
    free(request);
    free(connection);
    return NULL;
}

static void on_stop(int signum) {
    (void)signum;
    int kept = errno;
    stopping = 1;
    if (write(stop_pipe[1], "x", 1) < 0) { /* the pipe is full: it is readable already */
    }
    errno = kept;
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) {
        fprintf(stderr, "hello: cannot listen on port %d: %s\n", port, strerror(errno));
        exit(1);
    }
    return fd;
}

static void start(int fd, const pthread_attr_t *attributes) {
    Connection *connection = malloc(sizeof *connection);
    pthread_t thread;
    if (!connection) {
        close(fd);
        return;
    }
    connection->fd = fd;
    connection->have = connection->used = 0;
    count(1);
    if (pthread_create(&thread, attributes, converse, connection) != 0) {
        count(-1);
        close(fd);
        free(connection);
    }
}

static void accept_all(const pthread_attr_t *attributes) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) start(fd, attributes);
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) sleep_ms(10);
}

int main(void) {
    int port = atoi(setting("PORT", "8080"));
    struct sigaction action = {.sa_handler = on_stop};
    pthread_attr_t attributes;
    if (pipe(stop_pipe) != 0) return 1;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    listener = listen_on(port);
    fprintf(stderr, "hello: listening on 0.0.0.0:%d\n", port);
    while (!stopping) {
        struct pollfd wait[2] = {{listener, POLLIN, 0}, {stop_pipe[0], POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 || !wait[0].revents) continue;
        accept_all(&attributes);
    }
    accept_all(&attributes); /* who is in the queue has connected: closing now would reset him */
    close(listener);
    for (;;) {
        pthread_mutex_lock(&lock);
        int left = running;
        pthread_mutex_unlock(&lock);
        if (left == 0) break;
        sleep_ms(5);
    }
    fprintf(stderr, "hello: stopped\n");
    return 0;
}
