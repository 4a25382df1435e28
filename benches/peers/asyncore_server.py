"""Servers on asyncore and asynchat, which Python had until 3.11: asyncore_server.py MODE PORT"""

import socket
import sys
import warnings

warnings.simplefilter("ignore")
import asynchat
import asyncore

READ_BYTES = 65536
PIECE = b"Z" * READ_BYTES


class Echo(asyncore.dispatcher):
    def __init__(self, sock):
        super().__init__(sock)
        self.out = b""

    def readable(self):
        return not self.out

    def writable(self):
        return bool(self.out)

    def handle_read(self):
        data = self.recv(READ_BYTES)
        if data:
            self.out = data[self.send(data) :]

    def handle_write(self):
        self.out = self.out[self.send(self.out) :]

    def handle_close(self):
        self.close()


class Lines(asynchat.async_chat):
    ac_in_buffer_size = ac_out_buffer_size = READ_BYTES

    def __init__(self, sock):
        super().__init__(sock)
        self.set_terminator(b"\r\n")
        self.begun = []

    def collect_incoming_data(self, data):
        self.begun.append(data)

    def found_terminator(self):
        line = b"".join(self.begun)
        self.begun.clear()
        self.push(line + b"\r\n")


class Sink(asyncore.dispatcher):
    def writable(self):
        return False

    def handle_read(self):
        self.recv(READ_BYTES)

    def handle_close(self):
        self.close()


class Source(asyncore.dispatcher):
    def handle_read(self):
        self.recv(READ_BYTES)

    def handle_write(self):
        self.send(PIECE)

    def handle_close(self):
        self.close()


class Server(asyncore.dispatcher):
    def __init__(self, serve, port):
        super().__init__()
        self.serve = serve
        self.create_socket()
        self.set_reuse_addr()
        self.bind(("127.0.0.1", port))
        self.listen(4096)
        print("listening on 127.0.0.1:%d" % self.socket.getsockname()[1], flush=True)

    def writable(self):
        return False

    def handle_accepted(self, sock, _):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.serve(sock)


if __name__ == "__main__":
    servers = {"echo": Echo, "line": Lines, "sink": Sink, "source": Source}
    if len(sys.argv) != 3 or sys.argv[1] not in servers or not sys.argv[2].isdigit():
        sys.exit("error: usage: asyncore_server.py echo|line|sink|source PORT")
    try:
        Server(servers[sys.argv[1]], int(sys.argv[2]))
    except OSError as error:
        sys.exit("error: cannot serve on 127.0.0.1:%s: %s" % (sys.argv[2], error))
    asyncore.loop(use_poll=True)
