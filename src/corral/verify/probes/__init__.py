"""The probes: a file a family, or two where one would be long."""

from . import channel, copies, egress, exports, host, jail, limits, names, network, through, vm

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
_DECLARES = (copies, egress, through)  # into families of other files
