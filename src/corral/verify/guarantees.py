"""The promises that probes belong to, in the words of docs/threat-model.md."""

from __future__ import annotations

from .model import Guarantee

_TEXTS = {
    "Files": {
        "read-only": "What is shared read-only stays as it is",
        "paths": "Links, paths and races lead to nothing that is not shared",
        "unshared": "What is not shared is not there",
        "inert": "Nothing with rights of its own reaches the host",
    },
    "The repository and corral itself": {
        "repository": "What git on the host obeys stays as it is",
    },
    "Restored machines": {
        "own-identity": "No two sandboxes share random numbers, names or ids",
    },
    "Network and jail": {
        "own-machine": "A sandbox has a kernel of its own and the devices that were asked for",
        "filter": "No process of a jail escapes its filter",
        "jail": "A jail keeps what is in it away from the guest",
        "neighbours": "Nothing of one agent is within reach of another",
        "no-network": "Without a policy that allows it nothing is reached",
    },
    "What goes out": {
        "policy": "Only what the policy allows is connected to",
        "one-reading": "A name has one reading, for the decision and for the dial",
        "addresses": "No name leads to an address that is not public, unless you say so",
        "same-name": "A connection goes to the name that it was allowed for",
        "name-service": "Name service carries nothing out",
    },
    "The gateway": {
        "keys-stay": "No key of the gateway is in a sandbox, or comes back from an upstream",
        "gateway-bounds": "The gateway passes on what its configuration allows, and nothing else",
    },
    "Secrets": {
        "secret-hosts": "A secret goes to its hosts, and comes back from none",
        "own-authority": "What a sandbox trusts for interception is its own, for these hosts only",
    },
    "Channel": {
        "protocol": "A guest that breaks the protocol harms itself only",
        "carrier": "Nobody but corral and the guest's supervisor speaks on the channel",
    },
    "Files that are copied": {
        "archives": "What is copied out makes nothing outside its target",
    },
    "Helpers on the host": {
        "confined": "What serves a sandbox on the host is confined",
        "environment": "No variable and no secret of the host is in the guest",
        "local-users": "No other local user reaches a sandbox",
        "bounded": "A guest that exhausts something exhausts its own",
    },
}
GUARANTEES = {
    key: Guarantee(key=key, section=section, text=text)
    for section, texts in _TEXTS.items()
    for key, text in texts.items()
}
