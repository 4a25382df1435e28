"""Programs of Linux that talk with the examples for Windows under Wine: a line for each, with its figures.

usage: windows_clients.py WINE FOLDER NATIVE
    WINE runs a program for Windows; FOLDER has the examples for it, NATIVE those for this system
"""

import hashlib
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

WINE, FOLDER, NATIVE = sys.argv[1:]
PATIENCE = 30
MIB = 1 << 20


class Server:
    """An example under Wine that says where it listens."""

    def __init__(self, name, *arguments):
        self.name = name
        command = [WINE, f"{FOLDER}/{name}.exe", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        says, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        first = self.process.stdout.readline().decode(errors="replace").strip() if says else ""
        if not first.startswith("listening on "):
            self.__exit__()
            raise AssertionError(f"{name} says {first!r}")
        host, port = first.removeprefix("listening on ").rsplit(":", 1)
        self.address = (host, int(port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def processes(self):
        """Under Wine its command line is ours, and the name is that of a thread."""
        program = f"{FOLDER}/{self.name}.exe".encode()
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if words[0] == program or (program in words and b"wine64" in words[0]):
                found.append(int(entry))
        return found

    def memory(self):
        """In KiB, of all of them."""
        total = 0
        for process in self.processes():
            with open(f"/proc/{process}/status") as file:
                total += int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1))
        return total

    def dial(self):
        peer = socket.create_connection(self.address, PATIENCE)
        peer.settimeout(PATIENCE)
        return peer


def exactly(peer, count):
    got = bytearray()
    while len(got) < count:
        piece = peer.recv(65536)
        assert piece, f"the end after {len(got)} of {count} bytes"
        got += piece
    return bytes(got)


def there_and_back(peer, count=4_000_000):
    """All of it, by somebody who writes and reads at the same time."""
    sent = bytes(index % 251 for index in range(count))

    def speak():
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)

    speaker = threading.Thread(target=speak)
    speaker.start()
    got = exactly(peer, count)
    assert peer.recv(1) == b"", "an end"
    speaker.join()
    assert got == sent, "byte for byte"
    return f"{count} bytes there and back, the end seen"


def echo():
    with Server("echo", "127.0.0.1:0") as server:
        with server.dial() as peer:
            peer.sendall(b"hello\n")
            assert exactly(peer, 6) == b"hello\n"
        with server.dial() as peer:
            return there_and_back(peer)


def never_read():
    """Twenty who write and do not read: what waits for them has a bound, and others are served."""
    with Server("echo", "127.0.0.1:0") as server:
        before = server.memory()
        peers = [server.dial() for _ in range(20)]
        left = {peer: 32 * MIB for peer in peers}
        for peer in peers:
            peer.setblocking(False)
        piece = b"x" * 65536
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 2 and any(left.values()):
            _, ready, _ = select.select([], [peer for peer in peers if left[peer]], [], 0.5)
            for peer in ready:
                try:
                    left[peer] -= peer.send(piece[: left[peer]])
                    quiet_since = time.monotonic()
                except BlockingIOError:
                    pass
        grown = server.memory() - before
        with server.dial() as other:
            other.sendall(b"hello\n")
            assert exactly(other, 6) == b"hello\n"
        held = sum(1 for rest in left.values() if rest)
        assert held == len(peers), f"{len(peers) - held} could write all of their 32 MiB"
        assert grown < 20 * 1024, f"{grown} KiB more"
        return f"20 of 20 held back, {grown} KiB more, another one answered"


def enter(server, name):
    guest = server.dial()
    reader = guest.makefile("rb")
    assert reader.readline().startswith(b"Your name?")
    guest.sendall(name.encode() + b"\r\n")
    assert reader.readline().startswith(b"Welcome, " + name.encode())
    return guest, reader


def chat():
    with Server("chat", "127.0.0.1:0") as server:
        ann, hears_ann = enter(server, "ann")
        bob, hears_bob = enter(server, "bob")
        assert hears_ann.readline().strip() == b"* bob joined"
        bob.sendall(b"hi ann\r\n")
        assert hears_ann.readline().strip() == b"<bob> hi ann"
        bob.sendall(b"/quit\r\n")
        assert hears_ann.readline().strip().startswith(b"* bob left"), "it is told"
        while hears_bob.readline():
            pass
        ann.close()
        return "two in a room, one leaves"


def echo_of_linux():
    """A thread that sends back what one connection says."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        peer, _ = listener.accept()
        with peer:
            while piece := peer.recv(65536):
                peer.sendall(piece)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()


def proxy():
    host, port = echo_of_linux()
    with Server("proxy", "127.0.0.1:0", f"{host}:{port}") as server, server.dial() as peer:
        return there_and_back(peer)


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, timeout=4 * PATIENCE, **options)
    text = (done.stdout + done.stderr).decode(errors="replace").strip()
    assert done.returncode == 0, f"{command[0]}: {done.returncode}: {text}"
    return text


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def transfer():
    size = 8 * MIB
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        file, theirs, ours = (f"{folder}/{name}" for name in ("file", "theirs", "ours"))
        os.mkdir(theirs), os.mkdir(ours)
        with open(file, "wb") as made:
            made.write(os.urandom(size))
        with Server("transfer", "receive", theirs, "127.0.0.1:0") as server:
            host, port = server.address
            run(f"{NATIVE}/transfer", "send", f"{host}:{port}", file)
            assert digest(f"{theirs}/file") == digest(file)
        receiver = subprocess.Popen([f"{NATIVE}/transfer", "receive", ours, "127.0.0.1:0"], stdout=subprocess.PIPE)
        try:
            at = receiver.stdout.readline().decode().strip().removeprefix("listening on ")
            run(WINE, f"{FOLDER}/transfer.exe", "send", at, file)
            assert digest(f"{ours}/file") == digest(file)
        finally:
            receiver.kill()
            receiver.wait()
    return f"{size} bytes to it and from it, the same"


def timestamp():
    with Server("timestamp", "serve", "127.0.0.1:0") as server, server.dial() as peer:
        peer.sendall(b"hello\n")
        answer = peer.makefile("rb").readline()
        assert re.fullmatch(rb"\[\w{3} \w{3} [ \d]\d [\d:]{8} \d{4}\] hello\r?\n", answer), answer
    return answer.decode().strip()


def timestamp_udp():
    with Server("timestamp", "serve", "--udp", "127.0.0.1:0") as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(PATIENCE)
            asker.connect(server.address)
            for number in range(100):
                asker.send(b"question %d" % number)
                answer = asker.recv(2048)
                assert answer.strip().endswith(b"] question %d" % number), answer
        host, port = server.address
        by_ours = run(f"{NATIVE}/timestamp", "ask", "--udp", f"{host}:{port}", "hello")
        assert by_ours.endswith("] hello"), by_ours
        theirs = run(WINE, f"{FOLDER}/timestamp.exe", "ask", "--udp", f"{host}:{port}", "hello")
        assert theirs.endswith("] hello"), theirs
    return "100 questions answered, and one of each client"


def tls_echo():
    certificate, key = "tests/certs/p256.pem", "tests/certs/p256.key"
    told = []
    with Server("tls_echo", "127.0.0.1:0", "--cert", certificate, "--key", key) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile="tests/certs/ca.pem")
            context.minimum_version = context.maximum_version = version
            with context.wrap_socket(server.dial(), server_hostname="localhost") as peer:
                line = b"x" * 60_000 + b"\n"
                peer.sendall(line)
                assert exactly(peer, len(line)) == line
                told.append(f"{peer.version()} {peer.cipher()[0]}")
                peer.sendall(b"CLOSE\n")
                assert exactly(peer, 4).startswith(b"bye")
                assert peer.recv(1) == b"", "a close_notify"
    return ", ".join(told)


def ctrl_c():
    """Wine makes one of SIGINT."""
    with Server("chat", "127.0.0.1:0") as server:
        guest, reader = enter(server, "ann")
        for process in server.processes():
            with open(f"/proc/{process}/cmdline", "rb") as file:
                if not file.read().startswith(WINE.encode()):
                    os.kill(process, signal.SIGINT)
        while reader.readline():
            pass
        guest.close()
        status = server.process.wait(PATIENCE)
        assert status == 0, f"it ended with {status}"
    return "the room is closed, and status 0"


def main():
    failed = 0
    for trial in (echo, never_read, chat, proxy, transfer, timestamp, timestamp_udp, tls_echo, ctrl_c):
        name = "example: " + trial.__name__.replace("_", " ")
        try:
            print(f"PASS  {name:<52} {trial()}", flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError) as why:
            failed = 1
            print(f"FAIL  {name:<52} {type(why).__name__}: {why}", flush=True)
    sys.exit(failed)


main()
