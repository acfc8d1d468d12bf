"""Take the VPN down: containers, network, device and firewall rules. Certificates and profiles stay."""

import argparse
from collections.abc import Sequence

from devkit import commandline
from devkit.answers import read_answers


def main(arguments: Sequence[str]) -> int:
    """Run `down.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument("--images", action="store_true", help="remove the image, too")
    commandline.add_site_options(parser)
    return commandline.run(parser, _down, arguments)


def _down(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    site = commandline.site(project, read_answers(project), options)
    progress = commandline.messages()
    with progress.status("Taking the VPN down"):
        said = site.stop(images=options.images)
    progress.print(said, markup=False)
