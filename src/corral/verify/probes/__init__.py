"""The probes: a file a family, or two where one would be long."""

from . import (
    archives,
    channel,
    copies,
    egress,
    exports,
    gateway,
    host,
    jail,
    kernel,
    limits,
    links,
    local_users,
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
# These declare into families of other files.
_DECLARES = (
    archives,
    copies,
    egress,
    kernel,
    links,
    local_users,
    neighbours,
    reviews,
    through,
    upstreams,
)
