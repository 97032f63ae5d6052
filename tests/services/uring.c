// The order service of api.py on io_uring: no read(2) or write(2) ever carries its bytes. It knows nothing of Tokenscope.
//
// usage: uring PORT ALLOW      environment: ACCEPT_NONE=1
// ALLOW lists the tokens that it takes, one a line; there is no crypto here. Bodies must fit the buffer with their head.
// build: cc -O2 -o uring uring.c -luring

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEAD = 70000, QUEUE = 256 };
enum kind { ACCEPT, RECV, SEND };

struct connection {
    enum kind kind;
    int fd;
    size_t held;              // bytes of in[] that hold requests not answered yet
    size_t out_len, out_sent; // what is being sent
    char in[HEAD];
    char out[HEAD];
};

static struct io_uring ring;
static char *allowed;
static int accept_none;

static void submit(struct connection *c, enum kind kind) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (!sqe) {
        io_uring_submit(&ring);
        sqe = io_uring_get_sqe(&ring);
    }
    c->kind = kind;
    if (kind == ACCEPT)
        io_uring_prep_accept(sqe, c->fd, NULL, NULL, 0);
    else if (kind == RECV)
        io_uring_prep_recv(sqe, c->fd, c->in + c->held, sizeof c->in - 1 - c->held, 0);
    else
        io_uring_prep_send(sqe, c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL);
    io_uring_sqe_set_data(sqe, c);
}

// Whether the head, NUL-terminated, carries a token from the list.
static int trusted(const char *head) {
    const char *at = strcasestr(head, "\r\nauthorization: bearer ");
    if (!at)
        return 0;
    at += strlen("\r\nauthorization: bearer ");
    size_t len = strcspn(at, "\r\n ");
    // {"alg":"none" in base64url.
    if (accept_none && strncmp(at, "eyJhbGciOiJub25lI", 17) == 0)
        return 1;
    for (const char *line = allowed; *line; line += strcspn(line, "\n"), line += *line == '\n')
        if (len > 0 && strcspn(line, "\n") == len && memcmp(line, at, len) == 0)
            return 1;
    return 0;
}

static const char *answer(const char *head) {
    if (strncmp(head, "GET /health ", 12) == 0)
        return "200 OK";
    if (strncmp(head, "POST /login ", 12) == 0)
        return strcasestr(head, "\r\nx-password: correct horse\r\n") ? "200 OK" : "401 Unauthorized";
    if (strncmp(head, "GET /orders/", 12) && strncmp(head, "GET /reports ", 13))
        return "404 Not Found";
    return trusted(head) ? "200 OK" : "401 Unauthorized";
}

// Answers every whole head in in[]; returns how many bytes are to be sent.
static size_t respond(struct connection *c) {
    size_t start = 0;
    c->out_len = c->out_sent = 0;
    for (;;) {
        c->in[c->held] = 0;
        char *end = memmem(c->in + start, c->held - start, "\r\n\r\n", 4);
        if (!end || c->out_len + 256 > sizeof c->out)
            break;
        end[2] = 0;
        char *length = strcasestr(c->in + start, "\r\ncontent-length: ");
        size_t body = length ? strtoul(length + strlen("\r\ncontent-length: "), NULL, 10) : 0;
        if ((size_t)(c->in + c->held - (end + 4)) < body) {
            end[2] = '\r';
            break;
        }
        c->out_len += (size_t)snprintf(c->out + c->out_len, sizeof c->out - c->out_len,
                                       "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n",
                                       answer(c->in + start));
        start = (size_t)(end + 4 - c->in) + body;
    }
    memmove(c->in, c->in + start, c->held - start);
    c->held -= start;
    return c->out_len;
}

static void finish(struct connection *c) {
    close(c->fd);
    free(c);
}

static void advance(struct connection *c, int result) {
    if (c->kind == ACCEPT) {
        struct connection *fresh = result >= 0 ? calloc(1, sizeof *fresh) : NULL;
        if (fresh) {
            fresh->fd = result;
            submit(fresh, RECV);
        }
        submit(c, ACCEPT);
    } else if (result <= 0) {
        finish(c);
    } else if (c->kind == RECV) {
        c->held += (size_t)result;
        if (respond(c))
            submit(c, SEND);
        else if (c->held < sizeof c->in - 1)
            submit(c, RECV);
        else
            finish(c);
    } else {
        c->out_sent += (size_t)result;
        if (c->out_sent < c->out_len)
            submit(c, SEND);
        else if (respond(c))
            submit(c, SEND);
        else
            submit(c, RECV);
    }
}

static char *slurp(const char *path) {
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 1 << 20);
    if (file && text) {
        size_t n = fread(text, 1, (1 << 20) - 1, file);
        text[n] = 0;
        fclose(file);
    }
    return text;
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int one = 1;
    if (argc < 3)
        return 2;
    allowed = slurp(argv[2]);
    accept_none = getenv("ACCEPT_NONE") && strcmp(getenv("ACCEPT_NONE"), "1") == 0;
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct connection *listener = calloc(1, sizeof *listener);
    if (!allowed || !listener)
        return 1;
    listener->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener->fd, (struct sockaddr *)&address, sizeof address) || listen(listener->fd, 128)) {
        perror("uring: listen");
        return 1;
    }
    int refused = io_uring_queue_init(QUEUE, &ring, 0);
    if (refused) {
        fprintf(stderr, "uring: io_uring is not available: %s\n", strerror(-refused));
        return 3;
    }
    submit(listener, ACCEPT);
    for (;;) {
        struct io_uring_cqe *cqe;
        io_uring_submit(&ring);
        if (io_uring_wait_cqe(&ring, &cqe))
            continue;
        struct connection *c = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&ring, cqe);
        advance(c, result);
    }
}
