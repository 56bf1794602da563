"""The real server as a process, and real sockets: what fakes cannot show. All on loopback, with free ports."""
