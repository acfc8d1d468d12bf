"""Fetches a page for many computers, each in a network of its own and in a steady rhythm, as `fetching` prints it.

usage: fetching_together.py SECONDS DNS NAME PROCESS...
  SECONDS   between two attempts of a computer: one is http://NAME, as the DNS says where it is, the next by address
  PROCESS   is in a computer's network
"""

import ctypes
import itertools
import os
import sys
import threading
import time
from pathlib import Path

from tests.tunnel.fetching import fetch, look_up, repeat

PATIENCE = 15.0  # what comes late is late; only what never comes is lost
CLONE_NEWNET = 0x40000000  # linux/sched.h


def enter_network(process: int) -> None:
    """Move this thread to the network of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{process}/ns/net").open() as network:
        if libc.setns(network.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fetch_for_ever(process: int, dns: str, name: str, seconds: float, delay: float) -> None:
    """Fetch in one computer's network, beginning after a while."""
    enter_network(process)
    time.sleep(delay)
    address, by_name = look_up(dns, name, PATIENCE), itertools.cycle((True, False))

    def attempt() -> str:
        return fetch(look_up(dns, name, PATIENCE) if next(by_name) else address, name, patience=PATIENCE)

    repeat(str(process), attempt, name.partition(".")[0], seconds)


def main(seconds: float, dns: str, name: str, processes: list[int]) -> None:
    """Start with all computers, one after the other within the time of one attempt."""
    for number, process in enumerate(processes):
        delay = seconds * number / len(processes)
        threading.Thread(target=fetch_for_ever, args=(process, dns, name, seconds, delay)).start()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3], [int(process) for process in sys.argv[4:]])
