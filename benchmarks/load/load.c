/*
 * A load generator for line-based TCP servers, and for others that a fan-out is compared with. See --help for its use
 * and load.h for its parts.
 *
 * It stands on a core of its own beside a server on another, so every system call it saves is load it can add.
 */
#include "load.h"

#include <signal.h>
#include <stdio.h>

int main(int argc, char **argv) {
    struct options options;
    options_parse(&options, argc, argv);
    raise_descriptor_limit();
    /* OpenSSL writes with write(2), which has no MSG_NOSIGNAL. */
    signal(SIGPIPE, SIG_IGN);
    connections_prepare(&options);
    switch (options.command) {
        case COMMAND_ECHO: run_echo(&options); break;
        case COMMAND_FANOUT: run_fanout(&options); break;
        case COMMAND_IDLE: run_idle(&options); break;
        case COMMAND_CONNECT: run_connect(&options); break;
    }
    if (fflush(stdout) != 0 || ferror(stdout)) die("cannot write the result");
    return 0;
}
