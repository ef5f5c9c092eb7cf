#!/usr/bin/env python3
"""Opens many sessions of one pod at once, counts them, leaves them all, and counts again."""

import argparse
import json
import select
import subprocess
import sys
import time

from terminals import Terminal

PATIENCE = 180


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--agent", type=int, required=True, metavar="PID", help="the pod's agent")
    parser.add_argument("pod")
    return parser.parse_args()


def status(pod):
    answer = subprocess.run(["tazpod", "status", pod, "--json"], check=True, stdout=subprocess.PIPE)
    return json.loads(answer.stdout)["sessions"]


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def read_all(terminals, deadline):
    """Reads until each has shown something."""
    shown = {terminal: b"" for terminal in terminals}
    while not all(shown.values()):
        if time.monotonic() > deadline:
            sys.exit(f"{list(shown.values()).count(b'')} of {len(terminals)} sessions show nothing")
        ready = select.select([terminal.fd for terminal in terminals], [], [], 1)[0]
        for terminal in terminals:
            if terminal.fd not in ready:
                continue
            data = terminal.read(deadline)
            if not data:
                sys.exit(f"a session ended early: {shown[terminal].decode(errors='replace')}")
            shown[terminal] += data


def main():
    wanted = arguments()
    started = time.monotonic()
    deadline = started + PATIENCE
    before = resident_kib(wanted.agent)
    names = [f"s{number}" for number in range(wanted.count)]
    terminals = [Terminal(["tazpod", "attach", wanted.pod, "--session", name]) for name in names]
    read_all(terminals, deadline)
    seconds = time.monotonic() - started
    # Shells go on to their prompts meanwhile.
    while True:
        listed = [session for session in status(wanted.pod) if session["name"] in names]
        attached = sum(session["clients"] == 1 for session in listed)
        if attached == wanted.count or time.monotonic() > deadline:
            break
    with_clients = resident_kib(wanted.agent)
    for terminal in terminals:
        terminal.close(deadline)
    while True:
        kept = [session for session in status(wanted.pod) if session["name"] in names and session["clients"] == 0]
        if len(kept) == wanted.count or time.monotonic() > deadline:
            break
    json.dump({"count": wanted.count, "listed": len(listed), "attached": attached, "kept": len(kept),
               "seconds": seconds, "rss_before_kib": before, "rss_attached_kib": with_clients,
               "rss_kept_kib": resident_kib(wanted.agent)}, sys.stdout)


main()
