/*
 * The command line: one table of options, from which parsing and --help both come.
 */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { COUNT, DECIMAL, FLAG, CONTENT_OF_FILE, TEXT };

struct rule {
    const char *name;
    const char *unit;
    unsigned commands;
    enum kind kind;
    size_t offset;
    double least, most;
    const char *help;
};

#define ALL (COMMAND_ECHO | COMMAND_FANOUT | COMMAND_IDLE | COMMAND_CONNECT)
#define TIMED (COMMAND_ECHO | COMMAND_FANOUT | COMMAND_CONNECT)
#define LARGEST_BATCH ((size_t)64 << 20)
#define FIELD(name) offsetof(struct options, name)

static const struct rule rules[] = {
    {"port", "PORT", ALL, COUNT, FIELD(beginning.port), 1, 65535, "TCP port on 127.0.0.1; required"},
    {"clients", "N", COMMAND_ECHO | COMMAND_IDLE | COMMAND_CONNECT, COUNT, FIELD(clients), 1, 28000,
     "connections at the same time; 50"},
    {"depth", "MESSAGES", COMMAND_ECHO, COUNT, FIELD(depth), 1, 4096,
     "messages that each client keeps in flight; 1 (no meaning with --rate)"},
    {"subscribers", "N", COMMAND_FANOUT, COUNT, FIELD(subscribers), 1, 28000, "connections that only read; 100"},
    {"burst", "LINES", COMMAND_FANOUT, COUNT, FIELD(burst), 1, 65536, "lines the publisher sends in one write; 100"},
    {"seconds", "SECONDS", TIMED, DECIMAL, FIELD(seconds), 0.01, 86400, "time measured; 5"},
    {"warmup", "SECONDS", TIMED, DECIMAL, FIELD(warmup), 0, 86400, "time under the same load before that; 1"},
    {"size", "BYTES", ALL, COUNT, FIELD(size), 2, 262144, "length of a line with its newline; 64"},
    {"tls", NULL, COMMAND_ECHO | COMMAND_IDLE, FLAG, FIELD(tls), 0, 0,
     "TLS 1.2 or newer; the certificate is not verified"},
    {"rate", "MESSAGES/S", COMMAND_ECHO | COMMAND_FANOUT, DECIMAL, FIELD(rate), 0.001, 1e8,
     "open loop: messages a second over all clients, on schedule;\n"
     "latency counts from the scheduled time; needs a core alone,\nsince it polls"},
    {"request", "FILE", COMMAND_ECHO | COMMAND_IDLE, CONTENT_OF_FILE, FIELD(request), 0, 0,
     "what a message is, in place of a line of --size; it must\nbring one reply line"},
    {"request", "FILE", COMMAND_FANOUT, CONTENT_OF_FILE, FIELD(request), 0, 0,
     "what is sent for a message, in place of a line of --size;\nneeds a --prelude that subscribes"},
    {"delivery", "FILE", COMMAND_FANOUT, CONTENT_OF_FILE, FIELD(delivery), 0, 0,
     "what a subscriber gets for it, if not the same"},
    {"prelude", "FILE", COMMAND_ECHO | COMMAND_IDLE, CONTENT_OF_FILE, FIELD(beginning.prelude), 0, 0,
     "sent first on each connection; one reply line is awaited\n(an empty file: only the server's greeting)"},
    {"prelude", "FILE", COMMAND_FANOUT, CONTENT_OF_FILE, FIELD(beginning.prelude), 0, 0,
     "sent first by each subscriber, and answered once it is one"},
    {"prelude-end", "FILE", COMMAND_FANOUT, CONTENT_OF_FILE, FIELD(beginning.end), 0, 0,
     "how that answer ends; a newline"},
    {"publisher-port", "PORT", COMMAND_FANOUT, COUNT, FIELD(publisher.port), 1, 65535,
     "where the publisher connects, if not with the others"},
    {"publisher-prelude", "FILE", COMMAND_FANOUT, CONTENT_OF_FILE, FIELD(publisher.prelude), 0, 0,
     "sent first by the publisher, and answered"},
    {"publisher-prelude-end", "FILE", COMMAND_FANOUT, CONTENT_OF_FILE, FIELD(publisher.end), 0, 0,
     "how that answer ends; a newline"},
    {"check", NULL, COMMAND_ECHO, FLAG, FIELD(check), 0, 0, "every line differs, and must come back as it was sent"},
    {"expect", "TEXT", COMMAND_ECHO, TEXT, FIELD(expect), 0, 0, "every reply line must begin with it"},
};
#define RULES (sizeof rules / sizeof rules[0])

static const struct {
    const char *name;
    enum command command;
    const char *help;
} commands[] = {
    {"echo", COMMAND_ECHO, "requests and replies; a reply is a line"},
    {"fanout", COMMAND_FANOUT, "one publisher's lines, sent by the server to all other connections"},
    {"idle", COMMAND_IDLE, "connections that have had one reply and are then held until stdin ends"},
    {"connect", COMMAND_CONNECT, "connect, one line, its reply, reset, again"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static const char output_help[] =
    "\n"
    "Prints one JSON object: messages, deliveries or connections counted, seconds measured, rate per second,\n"
    "p50, p99, p999 and max in microseconds, and cpu, the share of a core that load itself used, but for polling.\n"
    "echo --rate also prints unanswered: messages owed at the end; their age then is in the percentiles. idle prints\n"
    "only clients.\n"
    "Errors are one line on stderr, exit status 1.\n";

static void print_options(unsigned command) {
    for (size_t i = 0; i < RULES; i++) {
        if (!(rules[i].commands & command)) continue;
        char left[48];
        snprintf(left, sizeof left, "--%s %s", rules[i].name, rules[i].unit ? rules[i].unit : "");
        for (const char *help = rules[i].help; *help; left[0] = '\0') {
            size_t length = strcspn(help, "\n");
            printf("  %-28s %.*s\n", left, (int)length, help);
            help += length + (help[length] == '\n');
        }
    }
}

static void print_help(unsigned command) {
    if (command == ALL) puts("usage: load echo|fanout|idle|connect [options]");
    for (size_t i = 0; i < COMMANDS; i++) {
        if (!(commands[i].command & command)) continue;
        printf("\n%s: %s\n", commands[i].name, commands[i].help);
        print_options(commands[i].command);
    }
    fputs(output_help, stdout);
}

static double number(const struct rule *rule, const char *text) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    /* Written so that NaN is refused too. */
    bool fits = value >= rule->least && value <= rule->most;
    if (fits && rule->kind == COUNT) fits = value == (double)(uint64_t)value;
    if (end == text || *end != '\0' || errno != 0 || !fits)
        die("--%s %s: not %s between %g and %.10g", rule->name, text,
            rule->kind == COUNT ? "a whole number" : "a number", rule->least, rule->most);
    return value;
}

static struct bytes content_of(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) die("%s: %s", path, strerror(errno));
    char *data = allocate(1, READ_SIZE);
    size_t length = fread(data, 1, READ_SIZE, file);
    if (ferror(file)) die("%s: %s", path, strerror(errno));
    if (!feof(file)) die("%s: longer than %zu bytes", path, READ_SIZE - 1);
    fclose(file);
    return (struct bytes){data, length};
}

static void apply(struct options *options, const struct rule *rule, const char *value) {
    void *field = (char *)options + rule->offset;
    switch (rule->kind) {
        case COUNT: *(uint64_t *)field = (uint64_t)number(rule, value); break;
        case DECIMAL: *(double *)field = number(rule, value); break;
        case FLAG: *(bool *)field = true; break;
        case CONTENT_OF_FILE: *(struct bytes *)field = content_of(value); break;
        case TEXT: *(struct bytes *)field = (struct bytes){value, strlen(value)}; break;
    }
}

static const struct rule *find_rule(const char *name, size_t length, enum command command) {
    for (size_t i = 0; i < RULES; i++)
        if (strlen(rules[i].name) == length && memcmp(rules[i].name, name, length) == 0 &&
            (rules[i].commands & command))
            return &rules[i];
    return NULL;
}

static enum command find_command(const char *name) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return commands[i].command;
    die("no command %s; there are echo, fanout, idle and connect", name);
}

static bool asks_for_help(const char *argument) {
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

static void check_together(const struct options *options) {
    if (options->beginning.port == 0) die("--port is missing");
    if (options->check && options->request.data) die("--check and --request exclude each other");
    if (options->check && options->expect.data) die("--check and --expect exclude each other");
    if (options->check && options->size < 24) die("--check needs a --size of 24 or more, for the numbers in the line");
    bool in_lines = !options->request.data && !options->delivery.data;
    if (options->command == COMMAND_FANOUT && !in_lines && !options->beginning.prelude.data)
        die("without an answer to --prelude it is not known who has subscribed, but where messages are lines");
    if (options->beginning.end.length == 0 || options->publisher.end.length == 0)
        die("--prelude-end: the file is empty");
    if (options->delivery.data && options->delivery.length == 0) die("--delivery: the file is empty");
    size_t size = options->request.data ? options->request.length : options->size;
    if (options->depth * size > LARGEST_BATCH || options->burst * size > LARGEST_BATCH)
        die("more than %zu MiB in one write", LARGEST_BATCH >> 20);
    if (options->request.data && options->request.length == 0) die("--request: the file is empty");
}

void options_parse(struct options *options, int argc, char **argv) {
    *options = (struct options){.clients = 50, .depth = 1, .subscribers = 100, .burst = 100, .size = 64};
    options->seconds = 5;
    options->warmup = 1;
    options->beginning.end = options->publisher.end = (struct bytes){"\n", 1};
    if (argc < 2) die("no command; see load --help");
    if (asks_for_help(argv[1])) {
        print_help(ALL);
        exit(0);
    }
    options->command = find_command(argv[1]);
    for (int i = 2; i < argc; i++) {
        if (asks_for_help(argv[i])) {
            print_help(options->command);
            exit(0);
        }
        if (strncmp(argv[i], "--", 2) != 0) die("%s: options begin with --", argv[i]);
        const char *name = argv[i] + 2;
        size_t length = strcspn(name, "=");
        const struct rule *rule = find_rule(name, length, options->command);
        if (rule == NULL) die("load %s has no option --%.*s", argv[1], (int)length, name);
        const char *value = name[length] == '=' ? name + length + 1 : NULL;
        if (rule->kind == FLAG && value) die("--%s takes no value", rule->name);
        if (rule->kind != FLAG && value == NULL) {
            if (++i == argc) die("--%s needs a value: %s", rule->name, rule->unit);
            value = argv[i];
        }
        apply(options, rule, value);
    }
    if (options->publisher.port == 0) options->publisher.port = options->beginning.port;
    check_together(options);
}

struct bytes line_of(size_t size) {
    char *line = allocate(1, size);
    for (size_t i = 0; i + 1 < size; i++) line[i] = (char)('a' + i % 26);
    line[size - 1] = '\n';
    return (struct bytes){line, size};
}

char *repeat(struct bytes text, size_t copies) {
    char *texts = allocate(copies, text.length);
    for (size_t copy = 0; copy < copies; copy++) memcpy(texts + copy * text.length, text.data, text.length);
    return texts;
}
