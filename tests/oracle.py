"""What asynchat makes of the same bytes, cut the same way. tests/cuts.rs runs this as `python3 -W ignore`.

Standard input, one case a line:

    corpus RULE TERMINATORS BYTES    what the cuts that follow are made in
    cut OFFSET ...                   feeds the pieces between these offsets, in this order

RULE is `once` (each terminator is set after the frame before it, the last one stays), `cycle` (the same, round and
round) or `header` (a frame `len N` is followed by one of N bytes, then by lines again). TERMINATORS are joined by commas:
`bHEX` for bytes, `iN` for a count, `n` for None.

Standard output, one line for each cut: the frames in hex joined by commas, `|`, and in hex what is in no frame: what was
collected, and what asynchat still holds back because a delimiter may have begun in it. At the end of a stream it drops the
latter without a word; here it counts.
"""

import asynchat
import sys


class Channel(asynchat.async_chat):
    def __init__(self, rule, terminators):
        super().__init__()
        self.rule, self.terminators = rule, terminators
        self.step, self.in_body = 0, False
        self.collected, self.frames = [], []
        self.set_terminator(terminators[0])

    def feed(self, chunk):
        self.chunk = chunk
        self.handle_read()

    def recv(self, size):
        assert 0 < len(self.chunk) <= size
        return self.chunk

    def collect_incoming_data(self, data):
        self.collected.append(data)

    def found_terminator(self):
        frame = b"".join(self.collected)
        self.collected.clear()
        self.frames.append(frame)
        self.step += 1
        if self.rule == "header":
            self.after_header_or_body(frame)
        elif self.rule == "cycle":
            self.set_terminator(self.terminators[self.step % len(self.terminators)])
        elif self.step < len(self.terminators):
            self.set_terminator(self.terminators[self.step])

    def after_header_or_body(self, frame):
        if self.in_body:
            self.in_body = False
            self.set_terminator(self.terminators[0])
        elif frame.startswith(b"len "):
            self.in_body = True
            self.set_terminator(int(frame[4:]))

    def outcome(self):
        rest = b"".join(self.collected) + self.ac_in_buffer
        return ",".join(frame.hex() for frame in self.frames) + "|" + rest.hex()


def terminator(word):
    if word == "n":
        return None
    return int(word[1:]) if word[0] == "i" else bytes.fromhex(word[1:])


def main():
    for line in sys.stdin.read().splitlines():
        words = line.split(" ")
        if words[0] == "corpus":
            rule, terminators = words[1], [terminator(word) for word in words[2].split(",")]
            data = bytes.fromhex(words[3])
            continue
        channel = Channel(rule, terminators)
        offsets = [0, *map(int, words[1:]), len(data)]
        for start, end in zip(offsets, offsets[1:]):
            if start < end:
                channel.feed(data[start:end])
        print(channel.outcome())


main()
