"""Where existing projects have their files: none may move, or an update would lose what the user has."""

from pathlib import Path

from devkit import layout
from devkit.layout import Layout

PROJECT = Path("/home/me/devkit")


def test_every_file_of_a_project_is_where_it_always_was() -> None:
    paths = vars(Layout(PROJECT))
    found = {name: str(path.relative_to(PROJECT)) for name, path in paths.items() if isinstance(path, Path)}
    assert found == {
        "project": ".",
        "answers": ".copier-answers.yml",
        "compose": "compose.yaml",
        "dockerfile": "gateway/Dockerfile",
        "dockerignore": ".dockerignore",
        "server_conf": "server/server.conf",
        "client_conf": "client/client.conf",
        "local": "local",
        "lock": "local/.lock",
        "delivered": "local/.delivered",
        "archive": "local/pki/archive",
        "staging": "local/pki/archive/.staging",
        "current": "local/pki/current",
        "host_record": "local/pki/vpn-host",
        "configs": "local/configs",
        "clients": "local/clients",
        "https": "local/https",
    }


def test_update_may_leave_a_conflict_in_what_the_commands_read() -> None:
    merged = {str(path.relative_to(PROJECT)) for path in Layout(PROJECT).merged}
    assert merged == {".copier-answers.yml", "client/client.conf", "compose.yaml", "server/server.conf"}


def test_users_and_services_look_at_the_generation_in_force() -> None:
    views = {str(view.relative_to(PROJECT)): target for view, target in Layout(PROJECT).views.items()}
    assert views == {
        "local/configs": "pki/current/configs",
        "local/clients": "pki/current/profiles",
        "local/https": "pki/current/https",
        "local/values.yaml": "pki/current/values.yaml",
    }


def test_generations_are_numbered_so_that_their_folders_sort() -> None:
    assert str(Layout(PROJECT).generation(7)) == "/home/me/devkit/local/pki/archive/0007"
    assert Layout(PROJECT).generation(12345).name == "12345"


def test_every_file_of_a_generation_is_where_it_always_was() -> None:
    found = {name: str(path) for name, path in vars(layout).items() if name.isupper() and name != "ANSWERS_FILE"}
    assert found == {
        "CA": "authority",
        "PREVIOUS_CA": "previous-authority",
        "CRL": "crl.pem",
        "REPLACED": "replaced.txt",
        "CLIENTS": "clients",
        "SUPERSEDED": "superseded",
        "PROFILES": "profiles",
        "VALUES": "values.yaml",
        "CONFIGS": "configs",
        "SERVER": "configs/server",
        "SERVER_CRL": "configs/crl.pem",
        "HTTPS": "https",
        "HTTPS_ROOT": "https/root",
        "PROXY": "https/proxy",
        "HTTPS_INTERMEDIATE": "https/proxy/intermediate",
        "EXPIRIES": "https/proxy/expiries.json",
    }
    assert str(layout.client("laptop")) == "clients/laptop.pem"
