"""pyftpdlib's own functional tests, against another server: each test's server is a process of the program under test, started with
the options that say what the test has set on pyftpdlib's classes. What only pyftpdlib itself could pass is counted apart: tests
that look into its process, and those that set what the program has no option for.

usage: ftp_suite.py [--texts] PROGRAM [PYTEST-ARGUMENT]...

The options are those that `PROGRAM --help` names. Of replies the code has to be the same, because what is said behind it is
free (RFC 959, 4.2); with --texts that too.
"""

import ast
import ipaddress
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
import warnings

PATIENCE = 5  # seconds, where pyftpdlib's tests wait for 2: our times are whole seconds, and theirs tenths
USUAL = 300  # seconds, of each time-out that a test leaves alone
WAIT = 30  # the same for data connections to come about

# These look into pyftpdlib's own process, or replace a part of it, so that with another server they pass for nothing.
INSIDE = re.compile(r"TestCallbacks|test_error_on_callback|test_repr|test_ioloop_fileno|test_sendfile_fails|test_permit_foreign|test_stou_max")
FILES = ["test_functional.py", "test_functional_ssl.py"]


class NoOption(Exception):
    """The test sets what the program cannot be told."""


class Program:
    """What a program takes, by its help."""

    def __init__(self, path):
        self.path = os.path.abspath(path)
        told = subprocess.run([self.path, "--help"], capture_output=True, text=True, timeout=10).stdout
        self.options = set(re.findall(r"--[a-z-]+", told))

    def named(self, *names):
        """The first of these names that it has."""
        return next((name for name in names if name in self.options), None)

    def command(self, server, root, at):
        handler, words = server.handler, [self.path]

        def add(names, value, *more):
            name = self.named(*names)
            if name is None:
                raise NoOption(names[0])
            words.extend([name, str(value), *more])

        if self.named("--user"):
            words.extend(["--user", "user:12345:rw", "--anonymous"])
        if self.named("--login-delay"):
            add(["--login-delay"], max(1, round(handler.auth_failed_timeout * 1000)))
        if handler.max_login_attempts != 3:
            add(["--logins-max"], handler.max_login_attempts)
        if handler.banner != "pyftpdlib ready.":
            add(["--banner"], handler.banner)
        if server.server.max_cons:
            add(["--max-clients", "--max"], server.server.max_cons - 1)  # theirs counts the listener
        if server.server.max_cons_per_ip:
            add(["--max-per-ip", "--per-ip"], server.server.max_cons_per_ip)
        self.add_times(handler, add)
        address = handler.masquerade_address or handler.masquerade_address_map.get(server.host)
        if address:
            name = self.named("--public-address", "--masquerade")
            if name == "--public-address" and not is_address(address):
                raise NoOption(f"{address}, which is not an address")
            add([name], address)
        if handler.passive_ports and self.named("--ports"):
            add(["--ports"], ",".join(map(str, handler.passive_ports)))
        elif handler.passive_ports:
            add(["--passive-ports"], f"{min(handler.passive_ports)}-{max(handler.passive_ports)}")
        if handler.permit_privileged_ports:
            add(["--privileged"], "yes")
        if not handler.use_gmt_times:
            raise NoOption("use_gmt_times")
        if handler.encoding != "utf8":
            raise NoOption("encoding")
        if getattr(handler, "certfile", None):
            add(["--tls"], handler.certfile, handler.certfile)
            if handler.tls_control_required or handler.tls_data_required:
                words.append(self.named("--require-tls") or "")
        return [*words, root, at]

    def add_times(self, handler, add):
        """Where there is one option for several times, the shortest."""
        times = {
            "--idle": (handler.timeout, USUAL),
            "--data-idle": (handler.dtp_handler.timeout, USUAL),
            "--passive-wait": (handler.passive_dtp.timeout, WAIT),
            "--active-wait": (handler.active_dtp.timeout, WAIT),
        }
        chosen = {}
        for name, (time, usual) in times.items():
            if time == usual:
                continue
            if not time:
                raise NoOption(f"{name} of 0: never")
            name = self.named(name) or "--idle"
            chosen[name] = min(chosen.get(name, time), time)
        for name, time in chosen.items():
            add([name], math.ceil(time))


def is_address(text):
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def wrapper_of(program, theirs):
    """The class that stands in for pyftpdlib's server in a thread."""

    class Wrapper:
        handler = theirs.FTPHandler
        lock = types.SimpleNamespace(__enter__=lambda: None, __exit__=lambda *_: None)
        alone = {}

        def __init__(self, addr=None):
            self.host, self.port = addr or (theirs.HOST, 0)
            self.server = types.SimpleNamespace(max_cons=0, max_cons_per_ip=0, handler=self.handler)
            self.process = None

        def start(self):
            host = f"[{self.host}]" if ":" in self.host else self.host
            try:
                command = program.command(self, theirs.HOME, f"{host}:{self.port}")
            except NoOption as error:
                Wrapper.alone[current()] = f"no option for {error}"
                raise
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            line = self.process.stdout.readline()
            assert line.startswith("listening on "), f"{command}: {line!r}"
            self.port = int(line.rsplit(":", 1)[1])

        def stop(self):
            if self.process:
                self.process.kill()
                self.process.wait()
                self.process.stdout.close()
            reset(theirs, self.handler)

    return Wrapper


def reset(theirs, handler):
    """As pyftpdlib's own class does, and what that leaves out."""
    theirs.reset_server_opts()
    handler.passive_dtp.timeout = handler.active_dtp.timeout = WAIT


def current():
    """The test that runs, as pytest tells it."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" ", 1)[0]


class Outcomes:
    """What each test has come to."""

    def __init__(self):
        self.of = {}

    def pytest_collection_modifyitems(self, items):
        # Those in TLS import the others, which would run twice.
        items[:] = [item for item in items if item.cls.__module__ == item.module.__name__]

    def pytest_runtest_logreport(self, report):
        known = self.of.get(report.nodeid)
        if report.failed or (report.when == "call" and known is None) or (report.skipped and known is None):
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message.splitlines()[0] if crash and crash.message else ""
            self.of[report.nodeid] = ("failed" if report.failed else report.outcome, why)


class CodesOnly(ast.NodeTransformer):
    """Has the tests compare no more of a reply than its code."""

    def visit_Call(self, node):
        self.generic_visit(node)
        for keyword in [keyword for keyword in node.keywords if keyword.arg == "match"]:
            code = re.match(r"\d{3}", keyword.value.value)
            keyword.value.value = code.group() if code else "^[45]"
        if isinstance(node.func, ast.Name) and node.func.id == "ae":  # assertEqual
            node.args = [code_of(argument) for argument in node.args]
        return node

    def visit_Compare(self, node):
        self.generic_visit(node)
        right = node.comparators[0]
        if isinstance(node.ops[0], ast.Eq) and self.is_reply(right):
            node.left, node.comparators = code_of(node.left), [code_of(right)]
        if isinstance(node.ops[0], ast.In) and isinstance(node.left, ast.Constant) and " " in str(node.left.value):
            return ast.Compare(ast.Subscript(right, ast.Constant(0)), [ast.In()], [ast.Constant("45")])
        return node

    def is_reply(self, node):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            return re.match(r"b?'\d{3} ", repr(node.value)) is not None
        return isinstance(node, ast.Name) and node.id in ("msg", "expected")


def code_of(node):
    return ast.Subscript(node, ast.Slice(upper=ast.Constant(3)))


def rewrite(source, are_texts_compared):
    # What is a list of ports to them is a range to us.
    tree = ast.parse(source.replace("range(40000, 60000, 200)", "range(40000, 40100)"))
    if not are_texts_compared:
        tree = ast.fix_missing_locations(CodesOnly().visit(tree))
    return ast.unparse(tree)


def main():
    words = sys.argv[1:]
    are_texts_compared = "--texts" in words
    words = [word for word in words if word != "--texts"]
    if not words or words[0] in ("-h", "--help"):
        sys.exit(__doc__)
    program = Program(words[0])
    if "--tls" not in program.options:
        FILES.pop()
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as home:
        prepare(os.path.join(place, "suite"), are_texts_compared)
        sys.path.insert(0, place)
        os.chdir(home)
        sys.exit(run(program, words[1:]))


def prepare(folder, are_texts_compared):
    """A copy of pyftpdlib's package of tests, because it is changed."""
    import pyftpdlib

    shutil.copytree(os.path.join(os.path.dirname(pyftpdlib.__file__), "test"), folder)
    for name in FILES:
        path = os.path.join(folder, name)
        with open(path) as file:
            source = file.read()
        with open(path, "w") as file:
            file.write(rewrite(source, are_texts_compared))


def run(program, more):
    # Imported now, because their home is where we are.
    import pytest
    import suite as theirs

    warnings.simplefilter("ignore")
    theirs.GLOBAL_TIMEOUT = PATIENCE
    theirs.FtpdThreadWrapper = theirs.FtpdMultiprocWrapper = wrapper = wrapper_of(program, theirs)
    reset(theirs, theirs.FTPHandler)
    lengthen_waits()
    place = os.path.dirname(theirs.__file__)
    outcomes = Outcomes()
    usual = ["-q", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-W", "ignore", "--rootdir", place]
    pytest.main([*usual, *more, *(os.path.join(place, name) for name in FILES)], plugins=[outcomes])

    groups = {"passed": [], "failed": [], "skipped": [], "pyftpdlib alone": []}
    for test, (outcome, why) in outcomes.of.items():
        name = test.split("::", 1)[-1]
        if test in wrapper.alone or INSIDE.search(name):
            groups["pyftpdlib alone"].append((name, wrapper.alone.get(test, "looks into its process")))
        else:
            groups[outcome].append((name, why))
    for group in ("skipped", "pyftpdlib alone", "failed"):
        for name, why in sorted(groups[group]):
            print(f"{group}: {name}: {why}"[:200])
    count = {group: len(tests) for group, tests in groups.items()}
    print(
        f"{count['passed']} of {sum(count.values())} pass, {count['failed']} fail, "
        f"{count['pyftpdlib alone']} only pyftpdlib itself could pass, {count['skipped']} are skipped"
    )
    return 0 if count["passed"] else 1


def lengthen_waits():
    """A client that would wait for a second waits longer, for the same reason."""
    import socket

    usual = socket.socket.settimeout
    socket.socket.settimeout = lambda self, time: usual(self, PATIENCE if time and 1 <= time < PATIENCE else time)


if __name__ == "__main__":
    main()
