// The Go peers: what a competent Go programmer writes with the standard library alone.
//
//	peers echo PORT            every line comes back
//	peers tls PORT CERT KEY    the same over TLS
//	peers sleep PORT SECONDS   every line comes back after that time
//	peers fanout PORT          every line goes to all other connections
package main

import (
	"crypto/tls"
	"log"
	"net"
	"os"
	"strconv"
	"time"
)

const usage = "usage: peers echo PORT | tls PORT CERT KEY | sleep PORT SECONDS | fanout PORT"

func main() {
	log.SetFlags(0)
	arguments := map[string]int{"echo": 1, "tls": 3, "sleep": 2, "fanout": 1}
	if len(os.Args) < 2 {
		log.Fatal(usage)
	}
	command, rest := os.Args[1], os.Args[2:]
	if wanted, known := arguments[command]; !known || len(rest) != wanted {
		log.Fatal(usage)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", rest[0]))
	if err != nil {
		log.Fatal(err)
	}
	switch command {
	case "echo":
		serve(listener, func(connection net.Conn) { echo(connection, 0) })
	case "tls":
		serve(tls.NewListener(listener, tlsConfig(rest[1], rest[2])), func(connection net.Conn) { echo(connection, 0) })
	case "sleep":
		pause := seconds(rest[1])
		serve(listener, func(connection net.Conn) { echo(connection, pause) })
	case "fanout":
		room := &room{members: make(map[*member]struct{})}
		// Joining happens in the accept loop, so that who connects later never speaks past who connected before.
		serve(listener, func(connection net.Conn) { room.join(connection).run() })
	}
}

func tlsConfig(certificate, key string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		log.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

func seconds(text string) time.Duration {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || value < 0 {
		log.Fatalf("%s: not a number of seconds", text)
	}
	return time.Duration(value * float64(time.Second))
}

func serve(listener net.Listener, handle func(net.Conn)) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go handle(connection)
	}
}
