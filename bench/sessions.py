#!/usr/bin/env python3
"""Opens many sessions of one pod at once, counts them, leaves them all, and counts again."""

import argparse
import json
import select
import subprocess
import sys
import time

from terminals import Terminal

PATIENCE = 60
SETTLING = 20


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
    """Reads until each has shown something or ended; what those that ended said."""
    shown = {terminal: b"" for terminal in terminals}
    ended = []
    while shown.keys() - ended and not all(shown.values()) and time.monotonic() < deadline:
        waiting = [terminal for terminal in terminals if terminal not in ended]
        ready = select.select([terminal.fd for terminal in waiting], [], [], 1)[0]
        for terminal in waiting:
            if terminal.fd in ready:
                data = terminal.read(deadline)
                shown[terminal] += data
                if not data:
                    ended.append(terminal)
    return sorted({shown[terminal].decode(errors="replace") for terminal in ended})


def count_sessions(pod, names, clients):
    """The sessions of these names that have so many clients, once that is all of them or patience ends."""
    deadline = time.monotonic() + SETTLING
    while True:
        found = [session for session in status(pod) if session["name"] in names and session["clients"] == clients]
        if len(found) == len(names) or time.monotonic() > deadline:
            return len(found)
        time.sleep(0.1)


def main():
    wanted = arguments()
    names = {f"s{number}" for number in range(wanted.count)}
    before = resident_kib(wanted.agent)
    started = time.monotonic()
    terminals = [Terminal(["tazpod", "attach", wanted.pod, "--session", name]) for name in sorted(names)]
    ended = read_all(terminals, started + PATIENCE)
    seconds = time.monotonic() - started
    attached = count_sessions(wanted.pod, names, clients=1)
    with_clients = resident_kib(wanted.agent)
    for terminal in terminals:
        terminal.close(time.monotonic() + SETTLING)
    kept = count_sessions(wanted.pod, names, clients=0)
    json.dump({"count": wanted.count, "attached": attached, "kept": kept, "ended": ended, "seconds": seconds,
               "rss_before_kib": before, "rss_attached_kib": with_clients,
               "rss_kept_kib": resident_kib(wanted.agent)}, sys.stdout)


main()
