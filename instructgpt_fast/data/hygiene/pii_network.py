"""E-mail addresses and IP addresses in a folded text (pii_fold)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from instructgpt_fast.data.hygiene.pii_fold import JOINED, UNSPACED

__all__ = ["find_emails", "find_ips"]

Span = tuple[int, int]

_UNSPACED = re.compile(f"[{UNSPACED}]")  # ends an address instead of joining it
_LOCAL = re.compile(r"[\w.%+'&*/=?^{|}~!#$-]{1,64}")
_HOST = re.compile(r"[\w.-]{3,253}")
_LABEL = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?\Z")
_TOP = re.compile(r"(?:[^\W\d_]{2,24}|xn--[a-z0-9-]{2,59})\Z", re.IGNORECASE)
_FILES = frozenset((
    "bmp", "css", "csv", "gif", "ico", "jpeg", "jpg", "js", "json", "jsx", "log", "pdf", "png", "scss", "svg", "tsx",
    "txt", "webp", "xml", "yaml", "yml",
))
_SPELLED = re.compile(
    r"(?<![\w.%+-])([\w.%+-]{1,64}) ?[\[({<] ?at ?[\])}>] ?"
    r"(\w[\w-]{0,62}(?: ?(?:[\[({<] ?(?:dot|punkt|point|punto) ?[\])}>]|\.) ?\w[\w-]{0,62}){1,4})", re.IGNORECASE,
)
_SPELLED_AT = re.compile(r"[\[({<] ?at ?[\])}>]", re.IGNORECASE)
_SPELLED_DOT = re.compile(r" ?[\[({<] ?(?:dot|punkt|point|punto) ?[\])}>] ?", re.IGNORECASE)
_USER_OF_URL = re.compile(r"://[^\s/@]{0,120}\Z")

_IPV4 = re.compile(
    rf"(?<![{JOINED}.,])(?<![A-Za-z]-)(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}(?![{JOINED}]|\.[{JOINED}]|-[A-Za-z]|,[0-9])"
)
_IPV6 = re.compile(
    rf"(?<![{JOINED}:.])[0-9A-Fa-f]{{1,4}}(?::[0-9A-Fa-f]{{0,4}}){{2,7}}(?![{JOINED}:]|\.[0-9])"
)
_NOT_AN_ADDRESS = re.compile(
    r"(?:\bv|\bver(?:sion|s)?\.?|\brelease|\bbuild|\brevision|\bsection|\bsec\.|\bchapter|\bclause|\bfirmware|§"
    r"|[A-Za-z]/|\boid|[<>=~!]=|\b(?:up|down)grad(?:e[sd]?|ing)\b[^.;:]{0,16}|\b(?:updat|patch)[a-z]*\b[^.;:]{0,16})"
    r"[ :=]{0,2}\Z", re.IGNORECASE,
)
_ADDRESS_WORD = re.compile(
    r"(?:\bip(?:v4)?\b|addr|host|server|client|proxy|gateway|login|logged|remote|peer|subnet|network|router|\bdns\b|\bfrom\b"
    r"|\bping|\bssh\b|\bnet\b|inet|://|@|\[)[^\n]{0,20}\Z", re.IGNORECASE,
)
_PORT_OR_PREFIX = re.compile(r":[0-9]{2,5}\b|/(?:[12]?[0-9]|3[0-2])\b")
_DOCUMENTATION = tuple(map(ipaddress.ip_network, (
    "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20",
)))
_UNICAST_V6 = ipaddress.ip_network("2000::/3")


def find_emails(text: str) -> Iterator[Span]:
    """Yield the places of e-mail addresses, also spelled as name [at] host [dot] org; both parts may be international.

    Not taken: names of image and data files (icon@2x.png), the user of a URL or of a copy over ssh (git@host:path), a
    handle with a second @, hosts without a dot.
    """
    at = text.find("@")
    while at >= 0:
        span = _email_at(text, at)
        if span is not None:
            yield span
        at = text.find("@", at + 1)
    if not _SPELLED_AT.search(text):
        return
    for found in _SPELLED.finditer(text):
        if _is_host(_SPELLED_DOT.sub(".", found[2]).replace(" ", "")):
            yield found.span()


def _email_at(text: str, at: int) -> Span | None:
    local = _LOCAL.match(text[max(0, at - 64) : at][::-1])  # from its end, which is known, to its beginning
    host = _HOST.match(text, at + 1)
    if local is None or host is None:
        return None
    name = _UNSPACED.split(local[0][::-1])[-1].lstrip(".'*/=?^{|}~!#$&-")
    name = name[name.rfind("=") + 1 :].lstrip("'{")  # to=ann@example.org in a query
    domain = _UNSPACED.split(host[0])[0].split("..")[0].rstrip(".-_")
    if name.startswith("_") and host[0][len(domain) :].startswith("_"):
        name = name.lstrip("_")  # Markdown's emphasis
    start, end = at - len(name), at + 1 + len(domain)
    if not name or name.endswith(".") or not _is_host(domain):
        return None
    before, after = text[max(0, start - 120) : start], text[end : end + 2]
    if before.endswith("@") or after.startswith("@") or _USER_OF_URL.search(before):
        return None
    if after[:1] == ":" and after[1:].strip() and "/" in text[end + 1 : end + 80].split(" ", 1)[0]:
        return None
    return start, end


def _is_host(domain: str) -> bool:
    """Whether `domain` is two or more labels with a name's last one, and not the name of a file."""
    labels = domain.split(".")
    return (
        len(labels) >= 2 and all(map(_LABEL.match, labels)) and _TOP.match(labels[-1]) is not None
        and labels[-1].lower() not in _FILES
    )


def find_ips(text: str) -> Iterator[Span]:
    """Yield the places of IPv4 and IPv6 addresses that a machine in the world may have, or that stand for such a one.

    Taken: public unicast and the ranges for documentation (RFC 5737, 3849, 9637), which stand for public ones in
    examples. Not taken: loopback, private, shared, link-local, multicast and reserved ranges, which name nobody outside
    their own network; what `_is_version` says.
    """
    if text.count(".") >= 3:
        for found in _IPV4.finditer(text):
            if _is_public(found[0]) and not _is_version(text, *found.span()):
                yield found.span()
    if text.count(":") >= 2:
        for found in _IPV6.finditer(text):
            address = found[0].rstrip(":") if not found[0].endswith("::") else found[0]
            if _is_public(address):
                yield found.start(), found.start() + len(address)


def _is_version(text: str, start: int, end: int) -> bool:
    """Whether four numbers are rather a version or a section: such a word before, or all small and no word for hosts.

    Of addresses drawn at random 2 % have four numbers below 100, of versions nearly all.
    """
    before = text[max(0, start - 32) : start]
    if _NOT_AN_ADDRESS.search(before):
        return True
    small = all(len(part) < 3 for part in text[start:end].split("."))
    return small and not _ADDRESS_WORD.search(before) and not _PORT_OR_PREFIX.match(text, end)


def _is_public(written: str) -> bool:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    if any(address in network for network in _DOCUMENTATION if network.version == address.version):
        return True
    if address.version == 6 and address not in _UNICAST_V6:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
