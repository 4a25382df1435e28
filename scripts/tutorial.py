"""Walks through docs/tutorial/, as scripts/tutorial.sh says, in the folder that it is given.

What it knows of a page: a `<details>` is a whole file, whose name stands in its summary. The first of a name is there when the page
begins, a later one from its place on. A block of `toml` takes the place of its section in Cargo.toml. A block of `text` is a terminal:
`# terminal 2` says which; after `$ ` comes a command, after `> ` a line for the program that runs, and `^C` is Ctrl-C; all else is what
is printed, and `…` stands for anything.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = REPOSITORY / "docs" / "tutorial"

ADDRESS = "127.0.0.1:7000"
FREE = "127.0.0.1:0"

# Seconds: for a command that builds, and for a line of a program that runs.
BUILD_MAX, LINE_MAX = 600, 30

# For where there is none: it ends when the other side has ended.
NC = f"""#!{sys.executable}
import os, socket, sys, threading
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def type_all():
    while typed := os.read(0, 4096):
        peer.sendall(typed)
threading.Thread(target=type_all, daemon=True).start()
while heard := peer.recv(4096):
    os.write(1, heard)
"""


class Different(Exception):
    """Something is not as the page says."""


def pattern(line):
    """A line of a page, in which `…` stands for anything."""
    return ".*".join(re.escape(part) for part in line.split("…"))


class Terminal:
    """One program, and what it has printed."""

    def __init__(self, command, folder):
        self.command, self.lines, self.seen, self.is_over = command, [], 0, False
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify()
        with self.changed:
            self.is_over = True
            self.changed.notify()

    def next(self, most):
        """The next line that was not looked at; None at the end."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.seen < len(self.lines) or self.is_over, most):
                raise Different(f"`{self.command}` prints nothing more; it has printed:\n{self.tail()}")
            if self.seen == len(self.lines):
                return None
            self.seen += 1
            return self.lines[self.seen - 1]

    def prints(self, wanted, may_skip, most):
        """Waits for such a line, the next one or a later one; returns it."""
        until = time.monotonic() + most
        while (line := self.next(max(until - time.monotonic(), 0))) is not None:
            if re.fullmatch(pattern(wanted), line):
                return line
            if not may_skip:
                raise Different(f"`{self.command}` prints\n    {line}\nand not\n    {wanted}")
        raise Different(f"`{self.command}` has ended without\n    {wanted}\nIt has printed:\n{self.tail()}")

    def types(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def interrupt(self):
        os.killpg(self.process.pid, signal.SIGINT)

    def status(self, most=LINE_MAX):
        try:
            return self.process.wait(most)
        except subprocess.TimeoutExpired:
            raise Different(f"`{self.command}` does not end; it has printed:\n{self.tail()}") from None

    def tail(self):
        return "\n".join("    " + line for line in self.lines[-40:])

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def sorted_tests(lines):
    """What runs at the same time ends in any order."""
    out, tests = [], []
    for line in lines:
        if re.match(r"test \S+ \.\.\. ", line):
            tests.append(line)
        else:
            out, tests = out + sorted(tests) + [line], []
    return out + sorted(tests)


class Walk:
    def __init__(self, place):
        self.place, self.folder, self.terminals, self.at = place, place, {}, None

    # ------------------------------------------------------------------------------------------------------ pages

    def page(self, path):
        self.terminals, self.at = {}, None
        elements = list(parse(path.read_text(encoding="utf-8")))
        there = set()
        for kind, name, text in elements:
            if kind == "file" and name not in there:
                there.add(name)
                # The first page makes the folder that its file is for.
                if (self.place / "chat").is_dir():
                    self.write(name, text)
        for kind, name, text in elements:
            if kind == "file" and name in there:
                there.discard(name)
            elif kind == "file":
                self.write(name, text)
            elif kind == "toml":
                self.configure(text)
            elif kind == "text":
                self.block(text.splitlines(), elements)
        self.clear()

    def clear(self):
        for terminal in self.terminals.values():
            terminal.kill()

    def write(self, name, text):
        path = self.place / "chat" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def configure(self, text):
        path = self.place / "chat" / "Cargo.toml"
        head = text.splitlines()[0]
        section = re.compile(rf"^{re.escape(head)}\n(?:[^\[\n].*\n)*", re.M)
        changed, count = section.subn(lambda _: text, path.read_text(encoding="utf-8"))
        if count != 1:
            raise Different(f"Cargo.toml has {count} sections {head}")
        path.write_text(changed, encoding="utf-8")

    # -------------------------------------------------------------------------------------------------- terminals

    def block(self, lines, elements):
        number = 1
        if lines[0].startswith("# terminal "):
            number = int(lines.pop(0).split()[-1])
        place = 0
        while place < len(lines):
            end = place + 1
            while end < len(lines) and not lines[end].startswith(("$ ", "> ", "^C")):
                end += 1
            first, printed = lines[place], lines[place + 1 : end]
            if first.startswith("$ "):
                self.command(number, first[2:], printed, elements)
            elif first.startswith("> "):
                self.terminal(number).types(first[2:])
                self.reads(number, printed)
            elif first == "^C":
                self.terminal(number).interrupt()
                self.reads(number, printed)
            else:
                self.reads(number, lines[place:end])
            place = end

    def terminal(self, number):
        if number not in self.terminals:
            raise Different(f"nothing runs in terminal {number}")
        return self.terminals[number]

    def command(self, number, command, printed, elements):
        if command.startswith("git clone "):
            (self.place / "mainspring").symlink_to(REPOSITORY)
        elif command.startswith("cd "):
            self.folder = self.folder / command[3:]
        elif command == "echo $?":
            status = str(self.terminal(number).status())
            if [status] != printed:
                raise Different(f"the status is {status}, and not {printed}")
        elif command.startswith(("cargo run --bin ", "nc ", "openssl s_client ", "head ")):
            at = self.at or ADDRESS
            self.start(number, command.replace(ADDRESS, at).replace(ADDRESS.replace(":", " "), at.replace(":", " ")))
            self.reads(number, printed)
        elif command.startswith("cargo run"):
            at = self.at or FREE
            self.start(number, command.replace(ADDRESS, at) if ADDRESS in command else f"{command} -- {at}")
            self.reads(number, printed)
        else:
            self.runs(command, printed)
            if command.startswith("cargo new "):
                # The versions that the repository was tested with.
                shutil.copy(REPOSITORY / "Cargo.lock", self.place / "chat")
                for kind, name, text in elements:
                    if kind == "file":
                        self.write(name, text)

    def start(self, number, command):
        if number in self.terminals:
            self.terminals[number].status()
        self.terminals[number] = Terminal(command if "|" in command else f"exec {command}", self.folder)

    def reads(self, number, printed):
        """What a program prints that goes on."""
        may_skip = False
        for line in printed:
            if line == "…":
                may_skip = True
                continue
            is_address = line == f"listening on {ADDRESS}"
            wanted = line.replace(ADDRESS, self.at or ("…" if is_address else ADDRESS))
            most = BUILD_MAX if is_address or "cargo" in self.terminal(number).command else LINE_MAX
            said = self.terminal(number).prints(wanted, may_skip, most)
            if is_address:
                self.at = said.removeprefix("listening on ")
            may_skip = False

    def runs(self, command, printed):
        """What a command prints that comes to an end."""
        terminal = Terminal(command, self.folder)
        self.terminals[0] = terminal
        terminal.process.stdin.close()
        status = terminal.status(BUILD_MAX)
        while terminal.next(LINE_MAX) is not None:
            pass
        is_failure = any("FAILED" in line for line in printed) or command.startswith("MAINSPRING_SEED=")
        if (status != 0) != is_failure:
            raise Different(f"`{command}` ends with status {status}; it has printed:\n{terminal.tail()}")
        if any(line.startswith("warning:") for line in terminal.lines):
            raise Different(f"`{command}` warns:\n{terminal.tail()}")
        if not printed:
            return
        wanted = "".join("(?:.*\n)*?" if line == "…" else pattern(line) + "\n" for line in sorted_tests(printed))
        said = "".join(line + "\n" for line in sorted_tests(terminal.lines))
        if not re.fullmatch(wanted + "\n*", said):
            expected = "\n".join("    " + line for line in printed)
            raise Different(f"`{command}` prints\n{terminal.tail()}\nand the page says\n{expected}")


def parse(text):
    """What is in a page, in its order: ("file", name, text), and ("toml" | "text" | "rs", "", text)."""
    block = re.compile(
        r"^<details><summary>[^:]*: (?P<name>[^,<]+)[^<]*</summary>\n\n```[\w,]*\n(?P<file>.*?)^```$\n\n</details>$"
        r"|^```(?P<kind>[\w,]*)\n(?P<text>.*?)^```$",
        re.M | re.S,
    )
    for match in block.finditer(text):
        if match["name"]:
            yield "file", match["name"], match["file"]
        else:
            yield match["kind"], "", match["text"]


def say(outcome, name, more):
    print(f"{outcome}  {name:<52} {more}", flush=True)


def main():
    place = Path(sys.argv[1])
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if not shutil.which("nc"):
        (place / "bin").mkdir()
        (place / "bin" / "nc").write_text(NC)
        (place / "bin" / "nc").chmod(0o755)
        os.environ["PATH"] = f"{place / 'bin'}:{os.environ['PATH']}"
        say("SKIP", "nc", "it is not installed: a few lines of Python are in its place")
    # What the pages print is printed without these.
    for name in ["RUST_BACKTRACE", "RUST_LOG", "MAINSPRING_SEED", "MAINSPRING_FAULTS"]:
        os.environ.pop(name, None)
    os.environ["CARGO_TERM_COLOR"] = "never"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what runs in the terminals ends too
    walk = Walk(place)
    for path in sorted(PAGES.glob("[0-9]*.md")):
        if "openssl " in path.read_text(encoding="utf-8") and not shutil.which("openssl"):
            say("SKIP", path.name, "openssl is not installed")
            continue
        began = time.monotonic()
        try:
            walk.page(path)
        except Different as different:
            say("FAIL", path.name, "")
            print(different)
            sys.exit(1)
        finally:
            walk.clear()
        say("PASS", path.name, f"{time.monotonic() - began:.1f} s")
    shutil.rmtree(place)


main()
