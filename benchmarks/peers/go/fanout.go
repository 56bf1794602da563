package main

import (
	"bytes"
	"net"
	"sync"
)

// A member that is further behind than this is let go, or one who does not read would hold everybody's lines for ever.
const largestBacklog = 64 << 20

// room is everybody who is connected.
type room struct {
	mutex   sync.RWMutex
	members map[*member]struct{}
}

// member is one connection: a goroutine reads its lines, another writes what the others have said.
type member struct {
	room       *room
	connection net.Conn

	mutex   sync.Mutex
	wake    sync.Cond
	pending net.Buffers // batches shared with the other members, hence never changed
	size    int         // bytes in pending
	gone    bool
}

func (room *room) join(connection net.Conn) *member {
	member := &member{room: room, connection: connection}
	member.wake.L = &member.mutex
	room.mutex.Lock()
	room.members[member] = struct{}{}
	room.mutex.Unlock()
	return member
}

func (room *room) leave(member *member) {
	room.mutex.Lock()
	delete(room.members, member)
	room.mutex.Unlock()
}

func (room *room) broadcast(batch []byte, from *member) {
	room.mutex.RLock()
	defer room.mutex.RUnlock()
	for member := range room.members {
		if member != from {
			member.send(batch)
		}
	}
}

func (member *member) run() {
	defer member.room.leave(member)
	go member.write()
	defer member.stop()
	member.read()
}

// read takes whole lines out of each read, as one batch, and keeps the beginning of a line for the next.
func (member *member) read() {
	buffer := make([]byte, 4*bufferSize)
	used := 0
	for {
		count, err := member.connection.Read(buffer[used:])
		if err != nil {
			return
		}
		used += count
		end := bytes.LastIndexByte(buffer[:used], '\n') + 1
		if end > 0 {
			member.room.broadcast(append([]byte(nil), buffer[:end]...), member)
			used = copy(buffer, buffer[end:used])
		} else if used == len(buffer) {
			return
		}
	}
}

func (member *member) send(batch []byte) {
	member.mutex.Lock()
	member.pending = append(member.pending, batch)
	member.size += len(batch)
	tooMuch := member.size > largestBacklog
	member.mutex.Unlock()
	member.wake.Signal()
	if tooMuch {
		member.connection.Close()
	}
}

// write sends all that is pending in one writev, and meanwhile lets the next batches gather in the other slice.
func (member *member) write() {
	var batches net.Buffers
	for {
		member.mutex.Lock()
		for len(member.pending) == 0 && !member.gone {
			member.wake.Wait()
		}
		if member.gone {
			member.mutex.Unlock()
			return
		}
		batches, member.pending = member.pending, batches[:0]
		member.size = 0
		member.mutex.Unlock()
		// WriteTo eats the slice that it is called on.
		rest := batches
		if _, err := rest.WriteTo(member.connection); err != nil {
			member.connection.Close()
			return
		}
	}
}

func (member *member) stop() {
	member.mutex.Lock()
	member.gone = true
	member.mutex.Unlock()
	member.wake.Signal()
	member.connection.Close()
}
