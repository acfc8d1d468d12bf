"""What must hold before anything is started, wherever the server runs. Each check raises UserError."""

from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import IPv4Network

from devkit import host
from devkit.answers import ANY_ADDRESS, CHANGE_ANSWER, Answers, address_to_listen_on, is_host
from devkit.errors import UserError
from devkit.facts import Engine
from devkit.generation import Generation
from devkit.report import ends_of


def check_ends(generation: Generation) -> None:
    """The server's certificate must not have ended."""
    ended = [end for end in ends_of(generation) if end.name == "server" and end.at <= datetime.now(UTC)]
    for end in ended:
        raise UserError(
            f"the server's certificate ended on {end.at:%Y-%m-%d}, so no client would connect: renew it with "
            f"`{end.renewal}`."
        )


def check_port(answers: Answers) -> None:
    """The endpoint must be free on this computer."""
    fault = host.port_fault(answers.vpn_listen, answers.vpn_port, answers.vpn_protocol)
    if fault:
        raise UserError(
            f"{answers.vpn_listen}:{answers.vpn_port}/{answers.vpn_protocol} cannot be published because {fault}: "
            f"free it, or choose another with `{CHANGE_ANSWER} vpn_port=NUMBER`."
        )


def check_listen(answers: Answers) -> None:
    """Clients that come to an address of this computer must find the port on that address."""
    wanted = address_to_listen_on(answers.vpn_host)
    own = {interface.address.ip for interface in host.interfaces()}
    if answers.vpn_listen not in (wanted, ANY_ADDRESS) and (wanted.is_loopback or wanted in own):
        raise UserError(
            f"vpn_listen is {answers.vpn_listen}, where clients that come to vpn_host {answers.vpn_host} find nothing: "
            f"change it with `{CHANGE_ANSWER} vpn_listen={wanted}`, or vpn_host."
        )


def check_host(answers: Answers, engine: Engine) -> None:
    """Clients must not look on their own computer for a server that is elsewhere."""
    if engine.host and host.is_loopback(answers.vpn_host) and not host.is_loopback(engine.host):
        raise UserError(
            f"vpn_host is {answers.vpn_host}, where each client finds itself, but the engine is on {engine.host}: "
            f"change it with `{CHANGE_ANSWER} vpn_host={engine.host}`."
        )


def check_context(answers: Answers, context: str | None) -> None:
    """A server whose host Docker's context named once must not be started where the context leads by now."""
    if answers.vpn_host_from == "record" and context and not host.same(answers.vpn_host, context):
        new = context if is_host(context) else "HOST"
        raise UserError(
            f"this project's server is on {answers.vpn_host}, and Docker's context leads to {context} now: choose the "
            f"context of {answers.vpn_host} (`docker context use NAME`), or let the profiles lead to {context} with "
            f"`{CHANGE_ANSWER} vpn_host={new}`."
        )


def check_routes(answers: Answers, known: Iterable[IPv4Network]) -> None:
    """No route may hide a network that this computer stands in; `known` are those that may be hidden."""
    # The VPN's own device is there while this computer is connected; with several replicas it has a part of the subnet.
    others = [
        interface
        for interface in host.interfaces()
        if interface.network != answers.vpn_subnet
        and not (interface.name.startswith(("tun", "utun")) and interface.network.subnet_of(answers.vpn_subnet))
    ]
    found = host.collision([*answers.routes, answers.vpn_subnet], others, known)
    if found:
        route, interface = found
        raise UserError(
            f"{route} collides with this computer's own network {interface.network} ({interface.name}): choose "
            f"others with `{CHANGE_ANSWER} 'routes=[...]'` (or vpn_subnet=...)."
        )
