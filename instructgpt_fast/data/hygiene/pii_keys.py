"""Secret keys in a folded text (pii_fold): tokens known by their first letters, private keys, passwords that are named.

Not covered: a secret without a known beginning that no word such as password or token announces.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

__all__ = ["entropy_bits", "find_keys"]

Span = tuple[int, int]

# The beginnings that the issuers document, so that leaked tokens can be found, with the letters that follow.
_TOKENS = (
    r"A(?:KIA|SIA)[A-Z0-9]{16}",  # Amazon Web Services
    r"gh[pousr]_[A-Za-z0-9]{36,255}", r"github_pat_[A-Za-z0-9_]{22,255}", r"gl(?:pat|dt|rt|cbt)-[\w-]{20,64}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}", r"xapp-[0-9]-[A-Za-z0-9-]{20,250}",  # Slack
    r"AIza[\w-]{35}", r"GOCSPX-[\w-]{28}", r"ya29\.[\w-]{20,500}",  # Google
    r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,250}", r"whsec_[A-Za-z0-9+/=]{24,100}",  # Stripe
    r"sk-(?:proj-|svcacct-|ant-)?[A-Za-z0-9_-]{20,250}",  # OpenAI, Anthropic
    r"hf_[A-Za-z]{30,40}", r"npm_[A-Za-z0-9]{36}", r"pypi-[\w-]{50,500}", r"dckr_pat_[\w-]{20,64}",
    r"SG\.[\w-]{16,32}\.[\w-]{16,64}", r"SK[0-9a-f]{32}", r"key-[0-9a-f]{32}",  # SendGrid, Twilio, Mailgun
    r"[0-9]{8,10}:AA[\w-]{33}", r"[MNO][A-Za-z0-9_-]{23,27}\.[\w-]{6}\.[\w-]{27,45}",  # Telegram, Discord
    r"do[opr]_v1_[0-9a-f]{64}", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", r"dapi[0-9a-f]{32}", r"hv[sb]\.[\w-]{24,200}",
    r"glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}", r"lin_api_[A-Za-z0-9]{40}", r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
    r"eyJ[\w-]{8,4000}\.eyJ[\w-]{8,8000}\.[\w-]{16,1000}",  # JSON Web Token (RFC 7519)
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9_-])(?:{'|'.join(_TOKENS)})(?![A-Za-z0-9_-])")
_HOOK = re.compile(r"https://hooks\.slack\.com/services/[A-Za-z0-9/]{20,80}")
_PEM = re.compile(r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_MOST = 16_384  # characters of one private key, at most
_PEM_BODY = re.compile(r"(?:(?:\s|\\[nr])*[A-Za-z0-9+/=]{20,100})*")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.]{1,20}://[^\s:/@]{0,64}:([^\s/@:]{3,200})@")
_USER = re.compile(r"(?:^|\s)(?:-u|--user)[ =][\w.@-]{1,64}:([^\s\"']{6,200})")  # curl's
_QUERY = re.compile(r"&\w+=")
_HEADER = re.compile(r"\b(?:Bearer|Basic|Token)[ ]{1,3}([A-Za-z0-9._~+/-]{16,2000}={0,2})", re.IGNORECASE)

# A word that announces a secret, a sign that gives it, and the value: in quotes with anything, else without spaces.
_PASSWORD = (
    "pass(?:word|wd|phrase|code)?|pwd|pw|kennwort|passwort|mot de passe|contraseña|senha|wachtwoord|hasło|parola"
    "|пароль|密码|密碼|パスワード|비밀번호"
)
_SECRET = (
    "secret|token|api[ _-]?key|access[ _-]?key|account[ _-]?key|auth[ _-]?key|secret[ _-]?key|private[ _-]?key"
    "|encryption[ _-]?key|signing[ _-]?key|client[ _-]?secret|credentials?"
)
_NAMED = re.compile(
    rf"(?:(?P<password>{_PASSWORD})|{_SECRET})[\"'\])]{{0,2}}[ \t]{{0,4}}(?::=|=>|=|:|\bis\b|\bist\b|\bes\b|\best\b)"
    r"[ \t]{0,4}(?:\"(?P<double>[^\"\n]{6,200})\"|'(?P<single>[^'\n]{6,200})'|(?P<bare>[^\s\"'`,;<>(){}\[\]]{6,200}))",
    re.IGNORECASE,
)
_HINTS = (
    "pass", "pwd", "pw", "secret", "token", "key", "credential", "kennwort", "mot de passe", "contras", "senha",
    "wachtwoord", "hasło", "parola", "пароль", "密", "パスワード", "비밀번호",
)
_BITS_OF_A_PASSWORD = 20.0  # 8 different characters have 24
_BITS_OF_A_SECRET = 48.0  # 16 characters of 8 kinds; less is a name or a word
_LONG_WORD = 16  # the shortest token above has as many characters in a row
_PLACEHOLDER = re.compile(
    r"[$%<@/{[]|https?:|.*(?:\$\{|\{\{|\*\*|\.\.\.|xxx|your|example\.|changeme|placeholder|redacted)", re.IGNORECASE
)
_PLACEHOLDER_OF_A_URL = re.compile(r"pass(?:word|wd)?|pwd?|secret|token|xyz|abc|123", re.IGNORECASE)
_NAME_IN_CODE = re.compile(r"[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+\Z")
# Words and small numbers with signs between: a name that someone chose.
_IDENTIFIER = re.compile(r"(?:[A-Za-z]+[0-9]{0,3}|[0-9]{1,4})(?:[_./:-](?:[A-Za-z]+[0-9]{0,3}|[0-9]{1,4}))*\Z")


def entropy_bits(text: str) -> float:
    """Return the bits of `text` as a draw from its own characters: len(text) times Shannon's entropy of their shares.

    Shannon 1948, section 6: -sum p log2 p, p a character's share. 0 for an empty text.
    """
    n = len(text)
    return -sum(count * math.log2(count / n) for count in Counter(text).values()) if n else 0.0


def find_keys(text: str) -> Iterator[Span]:
    """Yield the places of secret keys: known tokens, PEM private keys, passwords in URLs and headers, named secrets.

    A named secret is the value alone ("password = " stays): letters and digits with enough `entropy_bits`, or anything
    but plain letters in quotes after a word for password. What stands for a value in a manual (${TOKEN}, your-key) and
    names in code are not taken.
    """
    if "PRIVATE KEY" in text:
        yield from _private_keys(text)
    if max(map(len, text.split()), default=0) >= _LONG_WORD:
        for pattern in (_TOKEN, _HOOK):
            yield from (found.span() for found in pattern.finditer(text))
        for found in _HEADER.finditer(text):
            if _is_secret(found[1]):
                yield found.span(1)
    if "://" in text:
        for found in _URL.finditer(text):
            if not (_PLACEHOLDER.match(found[1]) or _PLACEHOLDER_OF_A_URL.fullmatch(found[1])):
                yield found.span(1)
    if " -u" in text or "--user" in text:
        yield from (found.span(1) for found in _USER.finditer(text) if _is_password(found[1], quoted=False))
    low = text.lower()
    if any(hint in low for hint in _HINTS):
        yield from _named(text)


def _private_keys(text: str) -> Iterator[Span]:
    """Yield each private key from its BEGIN to its END; without one, as far as lines of base64 go."""
    ends = [found.end() for found in _PEM_END.finditer(text)]
    done = at = 0
    for begin in _PEM.finditer(text):
        if begin.start() < done:
            continue
        while at < len(ends) and ends[at] <= begin.end():
            at += 1
        if at < len(ends) and ends[at] - begin.start() <= _PEM_MOST:
            done = ends[at]
        else:
            body = _PEM_BODY.match(text, begin.end())
            done = begin.end() if body is None else body.end()
        yield begin.start(), done


def _named(text: str) -> Iterator[Span]:
    for found in _NAMED.finditer(text):
        group = "double" if found["double"] else "single" if found["single"] else "bare"
        start, end = found.span(group)
        value = found[group]
        if group == "bare":
            value = _QUERY.split(value, maxsplit=1)[0].rstrip(".,:!?&")
            end = start + len(value)
            if text[end : end + 1] in ("(", "[") or _NAME_IN_CODE.match(value):
                continue
        known = _is_password(value, quoted=group != "bare") if found["password"] else _is_secret(value)
        if known and not _PLACEHOLDER.match(value):
            yield start, end


def _is_secret(value: str) -> bool:
    return (
        " " not in value and any(map(str.isdigit, value)) and any(map(str.isalpha, value))
        and entropy_bits(value) >= _BITS_OF_A_SECRET and not _IDENTIFIER.match(value)
    )


def _is_password(value: str, *, quoted: bool) -> bool:
    if " " in value or entropy_bits(value) < _BITS_OF_A_PASSWORD or not any(map(str.isalpha, value)):
        return False
    return any(map(str.isdigit, value)) or (quoted and not value.isalpha() and not _NAME_IN_CODE.match(value))
