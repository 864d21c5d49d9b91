"""The probes: a file a family, or two where one would be long."""

from . import (
    channel,
    copies,
    egress,
    exports,
    gateway,
    host,
    jail,
    limits,
    links,
    names,
    neighbours,
    network,
    reviews,
    secret,
    through,
    upstreams,
    vm,
)

FAMILIES = (
    vm.VM,
    jail.JAIL,
    exports.EXPORTS,
    channel.CHANNEL,
    network.NETWORK,
    names.NAMES,
    gateway.GATEWAY,
    secret.SECRETS,
    host.HOST,
    limits.LIMITS,
)
_DECLARES = (copies, egress, links, neighbours, reviews, through, upstreams)  # in others' families
