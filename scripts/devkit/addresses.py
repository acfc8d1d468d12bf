"""Networks and addresses of both families."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address, ip_network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

ANY_ADDRESS = IPv4Address(0)


def address_or_none(text: str) -> IPAddress | None:
    """A text as an address, or None when it is a name."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def ipv4_networks(cidrs: Iterable[str]) -> tuple[IPv4Network, ...]:
    """The IPv4 networks among the CIDRs, without their host bits."""
    networks = (ip_network(cidr.strip(), strict=False) for cidr in cidrs if cidr.strip())
    return tuple(network for network in networks if isinstance(network, IPv4Network))


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    """Whether two networks have an address in common."""
    return one.overlaps(other)  # never when their families differ


def within(inner: IPNetwork, outer: IPNetwork) -> bool:
    """Whether a network is a part of another, or the same."""
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one family


def routed(network: IPNetwork, routes: Iterable[IPv4Network]) -> bool:
    """Whether the routes together cover a whole network."""
    return any(within(network, route) for route in collapse_addresses(routes))


def contained(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    """Whether an address is in one of the networks."""
    return any(address in network for network in networks)


def first_host(network: IPv4Network) -> IPv4Address:
    """The first address in a network that a host may have."""
    return next(iter(network.hosts()))


def reverse_zones(routes: Iterable[IPv4Network]) -> Sequence[str]:
    """The zones of reverse look-ups that hold exactly these networks (RFC 1035, section 3.5), each once.

    One has 8, 16 or 24 bits; a network of more than 24 bits has none, as most of its zone is somebody else's.
    """
    zones: dict[str, None] = {}
    for route in routes:
        bits = max(8, -(-route.prefixlen // 8) * 8)
        parts = route.subnets(new_prefix=bits) if bits <= 24 else ()
        for part in parts:
            octets = str(part.network_address).split(".")[: part.prefixlen // 8]
            zones[".".join([*reversed(octets), "in-addr.arpa"])] = None
    return tuple(zones)
