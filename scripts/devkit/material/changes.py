"""Changes to the project's secrets: each holds the lock, reads what is in force, and stores what follows from it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from devkit.answers import CHANGE_ANSWER, NEW_CA, THIS_COMPUTER, Answers, client_name_problem
from devkit.errors import UserError
from devkit.keys.model import SERVER, Generation
from devkit.keys.x509 import Credential
from devkit.layout import Layout
from devkit.material import contents, reading, rotation, store
from devkit.material.expiry import OF_CA
from devkit.material.rotation import RotationKind
from devkit.material.state import find_client


@dataclass(frozen=True)
class Renewal:
    """What a rotation did to one certificate."""

    name: str
    old: Credential
    new: Credential


def ensure_material(project: Path, answers: Answers, now: datetime) -> Literal["made", "changed", "unchanged"]:
    """Make the first generation if there is none, and bring the profiles up to date with the answers.

    Returns what became of the profiles. Raises UserError when another run holds the lock or something is
    damaged; OSError as it comes.
    """
    paths = Layout(project)
    with store.locked(paths):
        store.make_archive(paths)
        made = not store.was_ever_made(paths)
        if made:
            _save(paths, rotation.first_generation(answers, now), answers)
        if made or store.first_run_was_cut_short(paths):
            store.switch_to(paths, 1)
        generation = _settled(paths, now)
        if _is_new(generation, answers):
            _require_ca(generation, now)
            generation = rotation.with_clients(generation, [answers.client_name], answers, now)
        changed = _update(paths, _with_https(paths, generation, answers, now), answers)
    return "made" if made else "changed" if changed else "unchanged"


def change_answers(project: Path, change: Callable[[], Answers], now: datetime) -> tuple[Answers, bool]:
    """Let `change` write other answers while nobody else does, and bring the profiles up to date with them.

    Returns the new answers, and whether a profile has changed. Raises as `change` and as `ensure_material`.
    """
    paths = Layout(project)
    with store.locked(paths):
        generation = _settled(paths, now)
        answers = change()
        return answers, _update(paths, _with_https(paths, generation, answers, now), answers)


def record_host(project: Path, answers: Answers) -> bool:
    """Keep the host that Docker's context named, or forget it when the user answered one.

    Returns whether the profiles change: the host is new and not this computer. Raises as `ensure_material`.
    """
    paths = Layout(project)
    if answers.vpn_host_from == "answer" and paths.host_record.exists():
        paths.host_record.unlink()
    if answers.vpn_host_from != "context":
        return False
    with store.locked(paths):
        store.record_host(paths, answers.vpn_host)
    return answers.vpn_host != THIS_COMPUTER


def rotate(project: Path, answers: Answers, kind: RotationKind, revoke_now: bool, now: datetime) -> tuple[Renewal, ...]:
    """Make the next generation and switch to it; see `rotation.rotated` for what it holds.

    Returns what became of each certificate. Raises as `ensure_material`.
    """
    paths = Layout(project)
    with store.locked(paths):
        current = _settled(paths, now)
        if kind == "leaf":
            _require_ca(current, now)
        if current.replaced is None and not (kind == "all" and revoke_now):  # which revokes all that was ever issued
            raise UserError(
                f"{paths.generation(current.number - 1)} is missing or damaged, so what it issued cannot be revoked: "
                f"restore it from your backup, or revoke all that was ever issued with `{NEW_CA} --data revoke=now`."
            )
        following = rotation.rotated(current, kind, revoke_now, answers, now)
        if _is_new(following, answers):
            following = rotation.with_clients(following, [answers.client_name], answers, now)
        _save(paths, following, answers)
        store.switch_to(paths, following.number)
        store.link_views(paths, answers.client_name, contents.profile_suffixes())
    old = {client.name: client.credential for client in current.live_clients}
    renewals = [Renewal(SERVER, current.server, following.server)]
    renewals += [
        Renewal(client.name, old[client.name], client.credential)
        for client in following.live_clients
        if client.name in old
    ]
    if kind == "all":
        renewals.insert(0, Renewal(OF_CA, current.ca.credential, following.ca.credential))
    return tuple(renewals)


def add_clients(project: Path, answers: Answers, names: Sequence[str], now: datetime) -> int:
    """Issue certificates to new clients; return how many there are then that may connect.

    Raises UserError when a name is bad or taken, and as `ensure_material`.
    """
    for name in names:
        problem = client_name_problem(name)
        if problem:
            raise UserError(problem)
    if len({name.casefold() for name in names}) < len(names):
        raise UserError("you gave the same name twice: give each client one of its own.")
    paths = Layout(project)
    with store.locked(paths):
        current = _settled(paths, now)
        live = {client.name.casefold(): client.name for client in current.live_clients}
        for name in names:
            if name.casefold() in live:
                holder = live[name.casefold()]
                raise UserError(
                    f"there is a client {holder!r} already: `./scripts/client.py show {holder}` prints its profile."
                )
            revoked = current.client(name)
            if revoked and revoked.name != name:
                raise UserError(
                    f"{name!r} differs only in case from the revoked client {revoked.name!r}: issue that one anew "
                    f"with `./scripts/client.py add {revoked.name}`, or choose another name."
                )
        _require_ca(current, now)
        for client in (client for client in current.clients if client.name in names):
            copy = f"{client.name}-{client.credential.serial_number:x}.pem"
            store.keep_superseded(paths, copy, contents.client_pem(client))
        following = rotation.with_clients(current, names, answers, now)
        _update(paths, following, answers)
    return len(following.live_clients)


def revoke_client(project: Path, answers: Answers, name: str, now: datetime) -> str:
    """Revoke a client; one that is revoked already stays so. Returns its name as its certificate spells it.

    Raises UserError when there is no such client, and as `ensure_material`.
    """
    paths = Layout(project)
    with store.locked(paths):
        current = _settled(paths, now)
        client = find_client(current, name)
        if client in current.live_clients:
            current = rotation.without_client(current, client.name, now)
        _update(paths, current, answers)
    return client.name


def _save(project: Layout, generation: Generation, answers: Answers) -> None:
    files = contents.files(generation, reading.readable(project), answers)
    store.save(project, generation.number, files, contents.folders())


def _update(project: Layout, generation: Generation, answers: Answers) -> bool:
    """Bring the generation in force up to date; return whether a profile has changed."""
    refused = [client.name for client in generation.clients if client.name.casefold() not in generation.live_names]
    changed = store.update(
        project,
        list(contents.files(generation, reading.readable(project), answers)),
        contents.folders(),
        unwanted_files=[path for name in refused for path in contents.files_of_the_refused(name)],
        unwanted_folders=[path for name in refused for path in contents.folders_of_the_refused(name)],
    )
    store.link_views(project, answers.client_name, contents.profile_suffixes())
    return changed


def _with_https(project: Layout, generation: Generation, answers: Answers, now: datetime) -> Generation:
    """The generation with the CA for HTTPS that it should have; a root that is replaced is kept."""
    before = generation.https
    after = rotation.with_https(generation, answers, now)
    if before and after.https and after.https.root != before.root:
        copy = f"https-{before.root.serial_number:x}.pem"
        store.keep_superseded(project, copy, before.root.certificate_pem + before.root.key_pem)
    return after


def _is_new(generation: Generation, answers: Answers) -> bool:
    """Whether the answer `client_name` names a client that does not exist yet.

    Raises UserError when it differs from another client's name only in case.
    """
    client = generation.client(answers.client_name)
    if client and client.name != answers.client_name:
        raise UserError(
            f"the answer client_name {answers.client_name!r} differs only in case from the client {client.name!r}: "
            f"choose another with `{CHANGE_ANSWER} client_name={client.name}`."
        )
    return client is None


def _require_ca(generation: Generation, now: datetime) -> None:
    """The CA must still be able to sign. Raises UserError when it has expired."""
    if generation.ca.credential.expiry <= now:
        raise UserError(f"the CA itself has expired, so it can sign nothing: make a new one with `{NEW_CA}`.")


def _settled(project: Layout, now: datetime) -> Generation:
    """The generation in force, with what an interrupted run or older code left out, as far as it is known."""
    generation = reading.load(store.in_force(project))
    if generation.replaced is None:  # made before generations kept it
        with suppress(UserError):
            before = reading.load(project.generation(generation.number - 1))
            generation = replace(generation, replaced=before.in_use())
    return rotation.settled(generation, now)
