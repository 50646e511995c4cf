"""A small PostgreSQL client for what pgbench can't do: many idle connections, and large answers."""

import socket
import struct
import time


class Connection:
    """One logged-in connection (trust)."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        words = b"user\0bench\0database\0bench\0\0"
        self.socket.sendall(struct.pack("!ii", 8 + len(words), 3 << 16) + words)
        self._until_ready()

    def _until_ready(self):
        """Reads up to ReadyForQuery; how many bytes came."""
        total, tail = 0, b""
        while not tail.endswith(b"Z\0\0\0\x05I"):
            piece = self.socket.recv(1 << 20)
            if not piece:
                raise ConnectionError("the connection was closed")
            total += len(piece)
            tail = (tail + piece)[-6:]
        return total

    def query(self, sql):
        """Runs a query in the simple protocol and drops its rows; how many bytes came."""
        text = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", 4 + len(text)) + text)
        return self._until_ready()

    def close(self):
        self.socket.sendall(b"X\0\0\0\x04")
        self.socket.close()


def read_for(port, sql, seconds):
    """Repeats a query for so long: bytes that came, seconds that passed."""
    connection = Connection(port)
    total, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        total += connection.query(sql)
    connection.close()
    return total, passed
