#!/usr/bin/env python3
"""Times a command on a terminal, again and again: from the fork to the first byte, and to a text, that it shows."""

import argparse
import codecs
import json
import statistics
import sys
import time

from terminals import Terminal

PATIENCE = 20


def keys(text):
    return codecs.decode(text, "unicode_escape").encode()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--until", type=str.encode, required=True, metavar="TEXT", help="what it shows in the end")
    parser.add_argument("--type", type=keys, default=b"", metavar="KEYS", help="type this after the first byte")
    parser.add_argument("--leave", type=keys, default=b"", metavar="KEYS",
                        help="end it by this, instead of closing its terminal")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


def run(wanted):
    """Milliseconds to the first byte, and to the text."""
    terminal = Terminal(wanted.command)
    deadline = terminal.forked + PATIENCE
    first, output = None, b""
    while wanted.until not in output:
        data = terminal.read(deadline)
        now = time.monotonic()
        if not data:
            sys.exit(f"the command ended early: {output.decode(errors='replace')}")
        if first is None:
            first = now
            terminal.write(wanted.type)
        output += data
    leave(terminal, wanted.leave)
    terminal.close(deadline)
    return (first - terminal.forked) * 1000, (now - terminal.forked) * 1000


def leave(terminal, typed):
    """Types that until the command ends. Engines' clients lose what is typed before they are ready."""
    for _ in range(10 if typed else 0):
        terminal.write(typed)
        try:
            while terminal.read(time.monotonic() + 0.5):
                pass
            return
        except TimeoutError:
            pass


def summary(times):
    times = sorted(times)
    return {
        "median": statistics.median(times),
        "p95": times[min(len(times) - 1, round(len(times) * 0.95))],
        "min": times[0],
        "max": times[-1],
    }


def main():
    wanted = arguments()
    times = [run(wanted) for _ in range(wanted.rounds)]
    first, until = zip(*times)
    json.dump({"command": wanted.command, "rounds": wanted.rounds, "first_ms": summary(first),
               "until_ms": summary(until)}, sys.stdout)


main()
