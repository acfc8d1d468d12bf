"""What Engine 29's own nftables firewall sets, for the networks and containers of an engine that sets nothing itself.

No such engine is packaged, so a lab's engine is started without a packet filter, and this one is placed beside it: the
chains, priorities and verdicts are those that a real 29.7 printed for the same kinds of network. `place` makes the
table, and `refresh` flushes and fills what that engine flushes and fills when containers come and go.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.docker_desktop.machine import Engine

TABLE = """
add table ip docker-bridges
delete table ip docker-bridges
table ip docker-bridges {
    map filter-forward-in-jumps { type ifname : verdict; }
    map filter-forward-out-jumps { type ifname : verdict; }
    map nat-postrouting-out-jumps { type ifname : verdict; }
    chain filter-FORWARD {
        type filter hook forward priority filter; policy accept;
        oifname vmap @filter-forward-in-jumps
        iifname vmap @filter-forward-out-jumps
    }
    chain nat-POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        iifname vmap @nat-postrouting-out-jumps
    }
    chain raw-PREROUTING {
        type filter hook prerouting priority raw; policy accept;
    }
}
"""


@dataclass(frozen=True)
class Bridge:
    """A network of the driver bridge; published ports and addresses of its containers, as Docker writes them."""

    device: str
    subnet: str
    internal: bool
    icc: bool
    protected: bool
    addresses: tuple[str, ...]
    published: tuple[tuple[str, str], ...]

    def rules(self) -> Iterator[str]:
        """The chains of this network, and the jumps to them."""
        into, out, nat = (f"filter-forward-in__{self.device}", f"filter-forward-out__{self.device}",
                          f"nat-postrouting-out__{self.device}")  # fmt: skip
        for chain in (into, out, nat):
            yield f"add chain ip docker-bridges {chain}"
            yield f"flush chain ip docker-bridges {chain}"
        for chain in (into, out):
            yield _rule(chain, "ct state established,related", "accept")
        if self.internal:
            yield _rule(into, f'iifname != "{self.device}"', "drop", "INTERNAL NETWORK INGRESS")
            yield _rule(out, f'oifname != "{self.device}"', "drop", "INTERNAL NETWORK EGRESS")
        yield _rule(into, f'iifname "{self.device}"', "accept" if self.icc else "drop", "ICC")
        for address, port in self.published:
            number, protocol = port.split("/")
            yield _rule(into, f"ip daddr {address} {protocol} dport {number}", "accept")
        if self.protected:
            yield _rule(into, "", "drop", "UNPUBLISHED PORT DROP")
        else:
            yield _rule(into, "", "accept", "UNPROTECTED")
        yield _rule(out, "", "accept", "OUTGOING")
        if not self.internal:
            yield _rule(nat, f'oifname != "{self.device}" ip saddr {self.subnet}', "masquerade", "MASQUERADE")
        for jumps, chain in (
            ("filter-forward-in-jumps", into),
            ("filter-forward-out-jumps", out),
            ("nat-postrouting-out-jumps", nat),
        ):
            yield f'add element ip docker-bridges {jumps} {{ "{self.device}" : jump {chain} }}'

    def raw_rules(self) -> Iterator[str]:
        """What is dropped before routing: direct access to each container, from anywhere but its own bridge."""
        for address in self.addresses if self.protected and not self.internal else ():
            yield _rule(
                "raw-PREROUTING", f'ip daddr {address} iifname != "{self.device}"', "drop", "DROP DIRECT ACCESS"
            )


def _rule(chain: str, of: str, verdict: str, comment: str = "") -> str:
    said = f' comment "{comment}"' if comment else ""
    return f"add rule ip docker-bridges {chain} {of} counter {verdict}{said}"


def place(engine: Engine) -> None:
    """Place the whole ruleset, as the engine does when it starts."""
    _load(engine, TABLE)
    refresh(engine)


def refresh(engine: Engine) -> None:
    """Bring it up to date, as the engine does at each start and stop of a container."""
    bridges = _bridges(engine)
    rules = ["flush chain ip docker-bridges raw-PREROUTING"]
    rules += [rule for bridge in bridges for rule in (*bridge.rules(), *bridge.raw_rules())]
    _load(engine, "\n".join(rules))


def _bridges(engine: Engine) -> list[Bridge]:
    names = engine.run("docker", "network", "ls", "--filter", "driver=bridge", "--format", "{{.Name}}").stdout.split()
    networks = json.loads(engine.run("docker", "network", "inspect", *names).stdout)
    running = engine.run("docker", "ps", "--quiet").stdout.split()
    containers = json.loads(engine.run("docker", "inspect", *running).stdout) if running else []
    return [_bridge(network, containers) for network in networks]


def _bridge(network: dict[str, Any], containers: list[dict[str, Any]]) -> Bridge:
    options = network["Options"] or {}
    bridge = "com.docker.network.bridge"
    places = [
        (container["NetworkSettings"]["Networks"][network["Name"]]["IPAddress"], container["NetworkSettings"]["Ports"])
        for container in containers
        if network["Name"] in container["NetworkSettings"]["Networks"]
    ]
    return Bridge(
        device=options.get(f"{bridge}.name") or f"br-{network['Id'][:12]}",
        subnet=network["IPAM"]["Config"][0]["Subnet"],
        internal=network["Internal"],
        icc=options.get(f"{bridge}.enable_icc") != "false",
        protected=options.get(f"{bridge}.gateway_mode_ipv4") != "nat-unprotected",
        addresses=tuple(address for address, _ in places),
        published=tuple((address, port) for address, ports in places for port, hosts in ports.items() if hosts),
    )


def _load(engine: Engine, rules: str) -> None:
    engine.run("sh", "-c", f"nft --file - << 'END'\n{rules}\nEND")
