"""Sends webhooks with httpx2, and to no address that must not be called.

Users name the address, and the platform may reach more than they do. So

1. the host is resolved here, once, and the connection is made to an address that was checked: a name cannot mean one
   address when it is checked and another when it is called;
2. redirects are not followed and proxies of the environment are not used: both lead past the check;
3. the addresses in `FORBIDDEN` and the platform's own ports on this machine's addresses are refused. Other private and
   loopback addresses are allowed, since that is where the receivers of a self-hosted platform live; not so with
   `public_only`, for a platform whose users must not reach each other, or into its network.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx2

from runyard.domain.errors import WebhookFailed, WebhookRefused
from runyard.domain.webhook import EXCERPT_CHARACTERS_MAX
from runyard.ports.webhooks import WebhookAnswer

CONNECT_S = 4.0
"""How long one address of several may take to accept a connection."""
ADDRESSES_MAX = 4
"""How many of a name's addresses are tried."""
ANSWER_BYTES_MAX = 64 * 1024
ANSWER_S = 1.0
"""How much of an answer's body is read, and for how long, so that a receiver can finish it."""
EXCERPT_BYTES = 4 * EXCERPT_CHARACTERS_MAX
"""Enough for an excerpt of any characters."""
LOOKUPS_MAX = 32
"""Names resolved at once. In threads of its own: a slow name server must not take those that others wait for."""

FORBIDDEN = {
    "an unspecified": ("0.0.0.0/8", "::/128"),
    "a link-local": ("169.254.0.0/16", "fe80::/10"),
    "a multicast or broadcast": ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8"),
    # Clouds hand out their machines' credentials there, and not all of them at 169.254.169.254.
    "a metadata": ("fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32", "168.63.129.16/32"),
}
_FORBIDDEN = [(kind, ip_network(network)) for kind, networks in FORBIDDEN.items() for network in networks]
_TRANSLATED = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")))
"""Where translators (NAT64, SIIT) have IPv4 addresses, in the last 32 bits."""
_COMPATIBLE = ip_network("::/96")
# What is not public, by the registries of IANA. In full, since what Python counts as global depends on its version.
_NOT_PUBLIC = [
    ip_network(network)
    for network in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
        "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 "
        "2001::/23 2001:db8::/32 2002::/16 3fff::/20"
    ).split()
]
_UNICAST = ip_network("2000::/3")
"""All that is public in IPv6 is in here."""
_HEADERS = {"Content-Type": "application/json", "User-Agent": "Runyard"}

Lookup = Callable[[str], tuple[str, ...]]
"""The addresses of a host name, none when it has none. May block."""


def look_up(host: str) -> tuple[str, ...]:
    """What the system's resolver says."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class HttpxWebhooks:
    """Every request has a connection of its own: receivers are many, and each is called now and then."""

    def __init__(self, *, own_ports: Container[int], public_only: bool = False, lookup: Lookup = look_up) -> None:
        self._own_ports = own_ports
        self._public_only = public_only
        self._lookup = lookup
        self._lookups: dict[str, asyncio.Future[tuple[str, ...]]] = {}
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, thread_name_prefix="webhook-lookup")
        self._tls: ssl.SSLContext | None = None

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        target = _parsed(url)
        addresses = await self._checked(target)
        if self._tls is None:
            self._tls = await asyncio.to_thread(httpx2.create_ssl_context)  # It reads files for 50 ms.
        headers = {**_HEADERS, **headers, "Host": target.netloc.decode()}
        try:
            return await self._post_to_first(addresses, target, body, headers)
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise WebhookFailed(f"the request failed ({type(error).__name__}): {error}") from error

    async def _checked(self, target: httpx2.URL) -> list[str]:
        """Addresses of the target's host that may be called."""
        host, port = target.raw_host.decode(), _port(target)
        addresses = await self._resolved(host)
        if not addresses:
            raise WebhookFailed(f"no address is known for {host}")
        refusals = {address: self._refusal(address, port) for address in addresses}
        allowed = [address for address, refusal in refusals.items() if refusal is None]
        if not allowed:
            reasons = "; ".join(f"{address} {refusal}" for address, refusal in refusals.items())
            raise WebhookRefused(f"{host}:{port} must not be called: {reasons}")
        return allowed[:ADDRESSES_MAX]

    async def _resolved(self, host: str) -> tuple[str, ...]:
        with contextlib.suppress(ValueError):
            return (str(ip_address(host)),)
        lookup = self._lookups.get(host)
        if lookup is None:
            lookup = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host)
            self._lookups[host] = lookup
            lookup.add_done_callback(lambda _: self._lookups.pop(host, None))
        return await asyncio.shield(lookup)  # Others may wait for it, too.

    async def _post_to_first(
        self, addresses: list[str], target: httpx2.URL, body: bytes, headers: Mapping[str, str]
    ) -> WebhookAnswer:
        *others, last = addresses
        for address in others:
            with contextlib.suppress(httpx2.ConnectError, httpx2.ConnectTimeout):
                return await self._post(address, target, body, headers)
        return await self._post(last, target, body, headers)

    async def _post(self, address: str, target: httpx2.URL, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """POST to this address, as if it had been found under the target's host name."""
        timeout = httpx2.Timeout(None, connect=CONNECT_S)
        client = httpx2.AsyncClient(verify=self._tls or True, trust_env=False, timeout=timeout)
        request = client.stream(
            "POST",
            target.copy_with(host=address),
            content=body,
            headers=headers,
            extensions={"sni_hostname": target.raw_host.decode()},
            follow_redirects=False,
        )
        async with client, request as response:
            return WebhookAnswer(status=response.status_code, excerpt=await _excerpt(response))

    def _refusal(self, address: str, port: int) -> str | None:
        """Why this address must not be called, None when it may."""
        ip = _reached(address)
        for kind, network in _FORBIDDEN:
            if ip in network:
                return f"is {kind} address"
        if port in self._own_ports and _is_here(ip):
            return "is the platform itself"
        if self._public_only and not _is_public(ip):
            return "is not a public address, and this platform calls no other (setting webhook_targets)"
        return None


async def _excerpt(response: httpx2.Response) -> str:
    """The first of the body, as text. Some more is read, for the receiver's sake."""
    start, size = bytearray(), 0
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(ANSWER_S):
            async for part in response.aiter_raw():
                size += len(part)
                start += part[: max(0, EXCERPT_BYTES - len(start))]
                if size > ANSWER_BYTES_MAX:
                    break
    return start.decode("utf-8", errors="replace")[:EXCERPT_CHARACTERS_MAX]


def _parsed(url: str) -> httpx2.URL:
    try:
        target = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise WebhookRefused(f"it is not a URL: {error}") from error
    if target.scheme not in ("http", "https") or not target.host or not 0 < _port(target) < 1 << 16:
        raise WebhookRefused("it is not an http:// or https:// URL with a host and a valid port")
    return target


def _port(target: httpx2.URL) -> int:
    return target.port if target.port is not None else 443 if target.scheme == "https" else 80


def _is_here(ip: IPv4Address | IPv6Address) -> bool:
    """Whether a connection to this address comes to this machine: nothing else can be bound."""
    if ip.is_loopback:
        return True
    family = socket.AF_INET if isinstance(ip, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip), 0))
    except OSError:
        return False
    return True


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    return (ip.version == 4 or ip in _UNICAST) and not any(ip in network for network in _NOT_PUBLIC)


def _reached(address: str) -> IPv4Address | IPv6Address:
    """The address that is reached: IPv4 ones can hide in IPv6 (mapped, compatible, 6to4, NAT64)."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return ip
    if any(ip in network for network in _TRANSLATED) or (ip in _COMPATIBLE and int(ip) > 1):
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
