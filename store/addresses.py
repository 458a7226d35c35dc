"""Where the service may send what its tenants ask it to send: to the public internet, and to the networks that its
operator names. Not to the machine it runs on, nor to its neighbours (server-side request forgery).

A name is resolved once, every address that it has must be allowed, and the connection goes to one of these very
addresses: a name that has another address a moment later gains nothing.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from llc.errors import InputError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEFAULT_PORTS = {"https": 443, "http": 80}
FIRST_FREE_PORT = 1024
"""Below it are services of other protocols, such as mail."""

_URL = re.compile(r"[\x21-\x7e]{1,2000}")
_HOST = re.compile(r"[0-9A-Za-z._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_DOCUMENTATION = IPv6Network("3fff::/20")  # which Python knows of from 3.13 on


def check_url(url: str, allow_http: bool) -> SplitResult:
    """The parts of an address that something may be sent to, as far as it can be told without asking for its host.

    Raises: InputError `bad_webhook_url`.
    """

    def refuse(why: str, hint: str = "for example https://lab.example/hooks") -> InputError:
        return InputError("bad_webhook_url", f"the URL {why}", hint)

    if _URL.fullmatch(url) is None:
        hint = "at most 2000 characters; names in their ASCII form (xn--…), anything else percent-encoded"
        raise refuse("has characters that are not printable ASCII, or too many", hint)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refuse("is not well-formed") from None
    if parts.scheme == "http" and not allow_http:
        raise refuse("starts with http://", "use https://; an operator may allow http:// by LAMBDAHAT_WEBHOOK_HTTP")
    if parts.scheme not in DEFAULT_PORTS:
        raise refuse("does not start with https://")
    if "@" in parts.netloc:
        raise refuse("has a user or a password in it", "signatures say who sends: see docs/webhooks.md")
    if _HOST.fullmatch(parts.hostname or "") is None:
        raise refuse("names no host")
    if port is not None and port != DEFAULT_PORTS[parts.scheme] and port < FIRST_FREE_PORT:
        raise refuse(f"names port {port}", f"the scheme's own port, or one from {FIRST_FREE_PORT} on")
    return parts


def resolve(host: str, port: int, networks: Sequence[Network]) -> list[str]:
    """The addresses of a host. Raises: InputError `unknown_host`, `refused_address`: one of them is not allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        raise InputError("unknown_host", f"the name '{host}' has no address", "check its spelling") from None
    addresses = list(dict.fromkeys(str(answer[4][0]) for answer in found))
    if not addresses or not all(is_allowed(ip_address(address), networks) for address in addresses):
        # Which address it is, is not told: it may be that of something that only this machine knows.
        hint = "an operator may allow networks by LAMBDAHAT_WEBHOOK_NETWORKS"
        raise InputError("refused_address", f"'{host}' is not on the public internet", hint)
    return addresses


def is_allowed(address: Address, networks: Sequence[Network]) -> bool:
    """Whether something may be sent there."""
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks) or is_public(address)


def is_public(address: Address) -> bool:
    """Whether this is a unicast address of the public internet, and so is every other address that stands in it."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    if not all(is_public(inner) for inner in _inside(address)):
        return False
    if address.ipv4_mapped or address in _NAT64:
        return True
    return address.is_global and address in _GLOBAL_UNICAST and address not in _DOCUMENTATION


def _inside(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses to which an IPv6 address leads: mapped, 6to4, Teredo, NAT64."""
    if address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFFFFFF)
    for inner in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())):
        if inner is not None:
            yield inner
