"""A VPN that is doing well, for tests of what else is to be said."""

from devkit import reachability
from devkit.answers import Answers
from devkit.facts import ClusterFacts, Condition, EngineFacts, Part


def well(facts: EngineFacts | ClusterFacts, answers: Answers) -> Condition:
    """All that should answer does."""
    found = {target.address: True for target in reachability.targets(facts, answers.routes)}
    return Condition((Part("vpn"), Part("firewall")), found, ())
