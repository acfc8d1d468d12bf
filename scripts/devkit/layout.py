"""Where everything in a project is: every path, once."""

from pathlib import Path, PurePosixPath

ANSWERS_FILE = ".copier-answers.yml"

# Within one generation:
CA = PurePosixPath("authority")  # .crt and .key, as those below
PREVIOUS_CA = PurePosixPath("previous-authority")
CRL = PurePosixPath("crl.pem")
REPLACED = PurePosixPath("replaced.txt")
CLIENTS = PurePosixPath("clients")
SUPERSEDED = PurePosixPath("superseded")
PROFILES = PurePosixPath("profiles")
VALUES = PurePosixPath("values.yaml")
CONFIGS = PurePosixPath("configs")
SERVER = CONFIGS / "server"
SERVER_CRL = CONFIGS / "crl.pem"
HTTPS = PurePosixPath("https")
HTTPS_ROOT = HTTPS / "root"  # .crt and .key
PROXY = HTTPS / "proxy"  # exactly what the container mounts
HTTPS_INTERMEDIATE = PROXY / "intermediate"
EXPIRIES = PROXY / "expiries.json"


def client(name: str) -> PurePosixPath:
    """Where a generation keeps a client's certificate and keys."""
    return CLIENTS / f"{name}.pem"


class Layout:
    """The paths of one project."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.answers = project / ANSWERS_FILE
        self.compose = project / "compose.yaml"
        self.dockerfile = project / "gateway/Dockerfile"
        self.dockerignore = project / ".dockerignore"  # what of this folder a build may see
        self.server_conf = project / "server/server.conf"  # the readable part of the server's configuration
        self.client_conf = project / "client/client.conf"  # the readable part of every profile
        # What the commands render from and run; an update's merge may leave a conflict in each.
        self.merged = (self.answers, self.client_conf, self.compose, self.server_conf)

        self.local = project / "local"  # all that is secret or particular to this machine; git ignores it
        self.lock = self.local / ".lock"  # whoever holds it may write in there
        self.delivered = self.local / ".delivered"  # exists while an engine has its own copy of what the services read
        self.archive = self.local / "pki/archive"  # all generations; a container that mounts one keeps it
        self.staging = self.archive / ".staging"  # one that is being made
        self.current = self.local / "pki/current"  # a link to the one in force: switching it is one rename
        self.host_record = self.local / "pki/vpn-host"  # the host that Docker's context named, if it was asked
        # Links through it, and their targets:
        self.configs = self.local / "configs"  # what the server reads
        self.clients = self.local / "clients"  # what users import
        self.https = self.local / "https"  # the root that computers trust, and what the proxy reads
        self.views = {
            self.configs: f"pki/current/{CONFIGS}",
            self.clients: f"pki/current/{PROFILES}",
            self.https: f"pki/current/{HTTPS}",
            self.local / "values.yaml": f"pki/current/{VALUES}",
        }

    def generation(self, number: int) -> Path:
        """A generation's folder."""
        return self.archive / f"{number:04}"
