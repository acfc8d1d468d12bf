"""VPN protocols: each is a lane, in a folder of its own, and registered here."""

from devkit.vpn.lane import Lane
from devkit.vpn.openvpn import OPENVPN

LANES: tuple[Lane, ...] = (OPENVPN,)
