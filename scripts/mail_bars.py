"""The load of mail_bars.sh: clients send mails to mail_sink, which is killed now and then, until each is told that it is stored.

usage: mail_bars.py PROGRAM FOLDER MAILS CLIENTS KILLS [forward]

Then each is looked for: there has to be one of it, whole. With `forward` a second mail_sink is where they are looked for, and the
first one, which is killed, hands them on to it. The last line of output is what was seen; the status is 0 if all is well.
"""

import collections, os, random, smtplib, socket, subprocess, sys, threading, time

TIME_MAX = 900


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Sink:
    def __init__(self, program, folder, *options):
        self.port = free_port()
        self.folder = folder
        self.command = [program, *options, folder, f"127.0.0.1:{self.port}"]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            sys.exit(f"it does not start: {line!r}")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def end(self):
        self.process.terminate()
        last = self.process.stdout.read().strip()
        if self.process.wait(60) != 0:
            sys.exit("it did not end well")
        return last

    def count(self, folder):
        return len(os.listdir(os.path.join(self.folder, folder)))


def text(number):
    """Of very different sizes, with lines that begin with dots."""
    lines = [f"mail {number} line {line}" + "." * (line % 3) for line in range(number % 97)] + [".", "..end"]
    return f"Message-ID: <{number}@bars>\r\nSubject: {number}\r\n\r\n" + "\r\n".join(lines) + "\r\n"


class Clients:
    def __init__(self, port, mails, clients):
        self.port = port
        self.told = self.again = 0
        self.changed = threading.Condition()
        share = lambda client: range(client, mails, clients)
        self.threads = [threading.Thread(target=self.run, args=(share(client),), daemon=True) for client in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, numbers):
        connection = None
        for number in numbers:
            while True:
                try:
                    connection = connection or smtplib.SMTP("127.0.0.1", self.port, "client.test", timeout=60)
                    connection.sendmail("a@client.test", [f"b{number % 5}@sink.test"], text(number))
                    break
                except (smtplib.SMTPException, OSError):
                    connection = None
                    with self.changed:
                        self.again += 1
                        self.changed.wait(0.05)  # it is being started again
            with self.changed:
                self.told += 1
                self.changed.notify_all()
        connection.quit()

    def wait_for(self, told):
        with self.changed:
            if not self.changed.wait_for(lambda: self.told >= told, TIME_MAX):
                sys.exit(f"only {self.told} of {told} after {TIME_MAX} s")


def main(program, folder, mails, clients, kills, forward=None):
    mails, clients, kills = int(mails), int(clients), int(kills)
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    random.seed(seed)
    last = Sink(program, os.path.join(folder, "last"), "--max-per-ip", "500")
    first = last
    if forward:
        first = Sink(program, os.path.join(folder, "first"), "--max-per-ip", "500", "--forward", f"127.0.0.1:{last.port}")
    began = time.monotonic()
    load = Clients(first.port, mails, clients)
    for told in sorted(random.sample(range(1, mails), kills)):
        load.wait_for(told)
        first.kill()
        first.start()
    load.wait_for(mails)
    told_after = time.monotonic() - began
    while forward and first.count("queue"):
        if time.monotonic() - began > TIME_MAX:
            sys.exit(f"{first.count('queue')} are in the queue still")
        time.sleep(0.1)
    took = time.monotonic() - began
    for thread in load.threads:
        thread.join()
    ends = {sink.end() for sink in (first, last)} if forward else {first.end()}

    found = collections.Counter()
    for name in os.listdir(os.path.join(last.folder, "new")):
        with open(os.path.join(last.folder, "new", name), newline="") as mail:
            head, _, rest = mail.read().partition("Message-ID: <")
        number = int(rest.split("@", 1)[0])
        found[number] += 1
        if "Message-ID: <" + rest != text(number).replace("\r\n", "\n"):
            sys.exit(f"{number} is not as it was sent (SEED={seed})")
    lost = [number for number in range(mails) if not found[number]]
    twice = [number for number in found if found[number] > 1]
    left = first.count("tmp")
    print(
        f"{mails} mails, {clients} clients, {kills} kills: {len(lost)} lost, {len(twice)} twice; {load.again} attempts failed; "
        f"{mails / told_after:.0f} mails/s taken" + (f", {mails / took:.0f} handed on" if forward else "") + f"; {left} in tmp/; SEED={seed}"
    )
    return 1 if lost or twice else 0


sys.exit(main(*sys.argv[1:]))
