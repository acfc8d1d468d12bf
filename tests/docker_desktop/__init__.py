"""A stand-in for Docker Desktop on plain Linux, as root: a Mac and a virtual machine with a Docker engine.

    with lab() as (mac, engine):
        mac.run("docker", "run", "--detach", WEB_IMAGE)

The VM and the Mac are processes in namespaces of their own, which die with the process that made the lab,
however it dies; nothing on the machine's own network, mounts or firewall is touched. What they share is one
folder, as Docker Desktop shares the user's home.
"""

from tests.docker_desktop.machine import (
    BALANCER_IMAGE,
    BASE_IMAGE,
    ENGINE_HOST,
    REGISTRY_IMAGE,
    WEB_IMAGE,
    Engine,
    Mac,
    kept_labs,
    lab,
    mac_alone,
    mac_beside_this_machine,
    podman_lab,
    processes_of,
    remote_lab,
    remove_lab,
)

__all__ = [
    "BALANCER_IMAGE",
    "BASE_IMAGE",
    "ENGINE_HOST",
    "REGISTRY_IMAGE",
    "WEB_IMAGE",
    "Engine",
    "Mac",
    "kept_labs",
    "lab",
    "mac_alone",
    "mac_beside_this_machine",
    "podman_lab",
    "processes_of",
    "remote_lab",
    "remove_lab",
]
