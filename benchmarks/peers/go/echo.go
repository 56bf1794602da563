package main

import (
	"bufio"
	"bytes"
	"net"
	"time"
)

// Also the longest line.
const bufferSize = 16384

// echo sends every line back, and flushes once per batch: when no further complete line has been read yet. With a
// pause there is no batch: no reply waits for the next one's pause.
func echo(connection net.Conn, pause time.Duration) {
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, bufferSize)
	writer := bufio.NewWriterSize(connection, bufferSize)
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return
		}
		if pause > 0 {
			time.Sleep(pause)
		}
		if _, err := writer.Write(line); err != nil {
			return
		}
		if pause > 0 || !hasLine(reader) {
			if err := writer.Flush(); err != nil {
				return
			}
		}
	}
}

// hasLine tells whether ReadSlice will return without reading. That something is buffered is not enough: a client may
// await our replies before it sends the rest of a line.
func hasLine(reader *bufio.Reader) bool {
	buffered, _ := reader.Peek(reader.Buffered())
	return bytes.IndexByte(buffered, '\n') >= 0
}
