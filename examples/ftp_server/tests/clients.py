"""What Python's ftplib sees of a server that runs: clients.py PORT ROOT CA, with a user `user`, password 12345, who may write."""

import ftplib
import os
import signal
import socket
import ssl
import sys
import threading
import time

port, root, ca = int(sys.argv[1]), sys.argv[2], sys.argv[3]
clients = int(sys.argv[4]) if len(sys.argv) > 4 else 20
data = os.urandom(1 << 20)
context = ssl.create_default_context(cafile=ca)


def session(private=False):
    ftp = ftplib.FTP_TLS(timeout=60, context=context) if private else ftplib.FTP(timeout=60)
    ftp.connect("localhost", port)
    ftp.login("user", "12345")
    if private:
        ftp.prot_p()
    ftp.voidcmd("TYPE I")
    return ftp


def stored(name):
    with open(os.path.join(root, name), "rb") as file:
        return file.read()


def fetched(ftp, name, rest=None):
    pieces = []
    ftp.retrbinary(f"RETR {name}", pieces.append, rest=rest)
    return b"".join(pieces)


def wait_for(what, is_so):
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until, what
        time.sleep(0.01)


class Pieces:
    def __init__(self, data):
        self.data, self.at = data, 0

    def read(self, count):
        self.at += count
        return self.data[self.at - count:self.at]


# Both ways, whole and from further on, in clear and in TLS; by EPSV, PASV and PORT.
for private in [False, True]:
    for passive in [True, False]:
        ftp = session(private)
        ftp.set_pasv(passive)
        name = f"f{private}{passive}"
        ftp.storbinary(f"STOR {name}", Pieces(data))
        assert stored(name) == data
        assert fetched(ftp, name) == data and fetched(ftp, name, 1000) == data[1000:]
        ftp.storbinary(f"STOR {name}", Pieces(data[500_000:]), rest=500_000)
        assert stored(name) == data and ftp.size(name) == len(data)
        names = sorted(name for name, facts in ftp.mlsd() if facts["type"] == "file")
        assert names == sorted(ftp.nlst()) and name in names, names
        ftp.rename(name, "other")
        ftp.delete("other")
        ftp.quit()

# A client that is killed amid its upload has not sent all, whatever the system says of its sockets; and goes on.
for private in [False, True]:
    pid = os.fork()
    if pid == 0:
        ftp = session(private)
        conn = ftp.transfercmd("STOR killed")
        conn.sendall(data[:300_000])
        time.sleep(600)
    part = os.path.join(root, ".killed.part")
    wait_for("half of it", lambda: os.path.exists(part) and os.path.getsize(part) == 300_000)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    ftp = session(private)
    until = time.monotonic() + 60
    while True:  # until the server has seen that the other is gone
        assert not os.path.exists(os.path.join(root, "killed"))
        try:
            size = ftp.size("killed")
            ftp.storbinary("STOR killed", Pieces(data[size:]), rest=size)
            break
        except ftplib.error_temp as error:
            assert str(error).startswith("450 ") and time.monotonic() < until, error
    assert size == 300_000 and stored("killed") == data
    ftp.delete("killed")
    ftp.quit()

# In TLS an end without close_notify is a cut, by whomever.
ftp = session(True)
conn = ftp.transfercmd("STOR cut")
conn.sendall(data[:100_000])
conn.close()
try:
    ftp.voidresp()
    raise AssertionError("it passed for whole")
except ftplib.error_temp as error:
    assert str(error).startswith("426 "), error
assert not os.path.exists(os.path.join(root, "cut"))
if os.path.exists(os.path.join(root, ".cut.part")):  # what was written of it until then
    assert data.startswith(stored(".cut.part"))
    ftp.delete(".cut.part")
ftp.quit()

# What comes in clear behind AUTH TLS is not obeyed later.
with socket.create_connection(("localhost", port), timeout=60) as raw:
    raw.recv(100)
    raw.sendall(b"AUTH TLS\r\nUSER user\r\n")
    told = b""
    try:
        while chunk := raw.recv(1000):
            told += chunk
    except ConnectionResetError:
        pass
    assert told.count(b"\r\n") <= 1 and not told.startswith(b"331"), told

# A data connection of somebody else's is let in by nobody, and bounces go nowhere.
ftp = session()
for line in ["PORT 127,0,0,2,10,10", "EPRT |1|127.0.0.2|2570|", "PORT 127,0,0,1,0,22"]:
    try:
        ftp.sendcmd(line)
        raise AssertionError(line)
    except ftplib.error_perm:
        pass
host, at = ftp.makepasv()
with socket.socket() as stranger:
    stranger.bind(("127.0.0.2", 0))
    stranger.settimeout(60)
    stranger.connect((host, at))
    try:
        assert stranger.recv(1) == b""
    except ConnectionResetError:
        pass
ftp.quit()

# Many at once.
failures = []


def one(n):
    try:
        ftp = session(n % 4 == 0)
        ftp.storbinary(f"STOR many{n}", Pieces(data))
        assert fetched(ftp, f"many{n}") == data
        ftp.quit()
    except Exception as error:  # noqa: the main thread tells it
        failures.append(error)


threads = [threading.Thread(target=one, args=(n,)) for n in range(clients)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
for n in range(clients):
    assert stored(f"many{n}") == data
    os.remove(os.path.join(root, f"many{n}"))
print("all is well")
