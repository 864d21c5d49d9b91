"""The probes: a file a family, or two where one would be long."""

from . import channel, copies, egress, exports, host, jail, limits, names, network, vm

FAMILIES = (
    vm.VM,
    jail.JAIL,
    exports.EXPORTS,
    channel.CHANNEL,
    network.NETWORK,
    names.NAMES,
    host.HOST,
    limits.LIMITS,
)
_DECLARES = (copies, egress)  # into families of other files
