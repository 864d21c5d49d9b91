"""Which addresses belong to the public internet, and which are somebody's own.

The tables are the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890, and the
RFCs since), with the few blocks that are special and still globally reachable left out. Python's
own `ipaddress.is_global` changed its mind within minor versions (CVE-2024-4032), so the tables are
ours, and a test compares the two.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from .names import IPAddress

IPNetwork = IPv4Network | IPv6Network

# Services that hand a machine's credentials to whoever asks from it: AWS, GCP, Azure, OpenStack
# (169.254.169.254); AWS ECS and EKS; Azure's wire server; Alibaba; Oracle; AWS and GCP over IPv6.
METADATA: frozenset[IPAddress] = frozenset(
    {
        IPv4Address("169.254.169.254"),
        IPv4Address("169.254.170.2"),
        IPv4Address("169.254.170.23"),
        IPv4Address("168.63.129.16"),
        IPv4Address("100.100.100.200"),
        IPv4Address("192.0.0.192"),
        IPv6Address("fd00:ec2::254"),
        IPv6Address("fd00:ec2::23"),
        IPv6Address("fd20:ce::254"),
    }
)

_SPECIAL_IPV4 = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "private"),  # shared between carriers and their customers, RFC 6598
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "reserved"),  # 6to4 relays, RFC 7526
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
)

# Outside 2000::/3 nothing is public; these say what it is, and what within it is not public.
_SPECIAL_IPV6 = (
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::/96", "reserved"),  # IPv4-compatible, RFC 4291 2.5.5.1
    ("64:ff9b:1::/48", "private"),  # NAT64 of a site's own, RFC 8215
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "private"),  # site-local, RFC 3879
    ("ff00::/8", "multicast"),
    ("2001::/32", "tunnel"),  # Teredo, RFC 4380
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "tunnel"),  # 6to4: the IPv4 address in it may be anyone's, RFC 7526
    ("3fff::/20", "documentation"),
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052

_IPV4 = tuple((IPv4Network(block), kind) for block, kind in _SPECIAL_IPV4)
_IPV6 = tuple((IPv6Network(block), kind) for block, kind in _SPECIAL_IPV6)


def special(address: IPAddress) -> str:
    """Why an address is not of the public internet, as an adjective, or "" for a public one.

    One that a NAT64 gateway translates is what the IPv4 address in it is: hosts without IPv4 get
    all public ones that way.
    """
    for form in forms(address):
        if form in METADATA:
            return "metadata"
    if isinstance(address, IPv4Address):
        return next((kind for block, kind in _IPV4 if address in block), "")
    if address.ipv4_mapped is not None:
        return special(address.ipv4_mapped)
    if address in _NAT64:
        return special(forms(address)[-1])
    kind = next((kind for block, kind in _IPV6 if address in block), "")
    return kind or ("" if address in _GLOBAL_UNICAST else "reserved")


def is_this_host(address: IPAddress) -> bool:
    """Whether it leads to this very machine wherever that is: loopback, and 0.0.0.0 and ::."""
    return any(form.is_loopback or special_block(form) == "unspecified" for form in forms(address))


def special_block(address: IPAddress) -> str:
    """`special` without what a translated address stands for."""
    blocks = _IPV4 if isinstance(address, IPv4Address) else _IPV6
    return next((kind for block, kind in blocks if address in block), "")


def forms(address: IPAddress) -> tuple[IPAddress, ...]:
    """The address, and the IPv4 address that it is translated to where there is one."""
    if isinstance(address, IPv6Address) and address in _NAT64:
        return address, IPv4Address(int(address) & 0xFFFFFFFF)
    return (address,)


@lru_cache(maxsize=4096)
def network(text: str) -> IPNetwork:
    """A network in canonical notation, as rules have it."""
    return ip_network(text)
