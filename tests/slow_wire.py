"""A slow network: a device whose network answers from this machine, each packet after a delay (it wants root).

    slow_wire.py DEVICE SECONDS

With 192.0.2.1 on the device, who connects to 192.0.2.2 reaches what listens on 192.0.2.1, and the way back is as slow.
"""

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h


def main(device: str, seconds: float) -> None:
    """Send each packet back with its two addresses exchanged, which leaves its checksums right."""
    wire = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(wire, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
    under_way: deque[tuple[float, bytes]] = deque()
    while True:
        patience = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        if select.select([wire], [], [], patience)[0]:
            packet = os.read(wire, 65535)
            if packet[0] >> 4 == 4:
                back = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
                under_way.append((time.monotonic() + seconds, back))
        while under_way and under_way[0][0] <= time.monotonic():
            os.write(wire, under_way.popleft()[1])


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
