"""The probes: a file a family, or two where one would be long."""

from . import channel, copies, exports, host, jail, limits, network, vm

FAMILIES = (
    vm.VM,
    jail.JAIL,
    exports.EXPORTS,
    channel.CHANNEL,
    network.NETWORK,
    host.HOST,
    limits.LIMITS,
)
_DECLARES = (copies,)  # into a family of another file
