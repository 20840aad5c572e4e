"""What looks like a secret, and text without it: by the name it has, by its shape, and as a value of the environment.

A commit that was pushed cannot be taken back, so nothing that looks like a secret comes into one, nor into a journal or
an error (decision 0037). Patterns are texts: `re` compiles those that are needed when they are first needed. Each reads hostile text in linear time.
"""

import re
import warnings
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, TypeVar

T = TypeVar("T")

MARK: Final = "***"
"""What stands in the place of a secret."""
SHORTEST: Final = 8
"""Characters that the value of an environment variable has at least to be looked for in other text."""

_NAMES: Final = (
    "password passwd passphrase passcode secret secrets credential credentials apikey apitoken authtoken accesstoken "
    "accesskey secretkey privatekey authorization"
)
"""Words of a name that say that whatever text it has is a secret, wherever they stand in it."""
_PAIRS: Final = "access account api app auth bearer client encryption master private refresh secret service signing"
"""The same in two words, of which the second is `key` or `token`."""
_PERHAPS: Final = "auth cookie key pass pat pwd sas token"
"""Last words of a name whose text is a secret if it looks like one: `pad_token: <pad>` and `sort_key: loss` do not."""
_ARBITRARY: Final = r"(?=(?:\D*\d){3})(?=.*[A-Za-z])[\w.+=~%-]{12,}"
_WORD: Final = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+"

_TOKENS: Final = (
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # Amazon
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}"  # GitHub, GitLab
    r"|\bxox[abeoprs]-[\w-]{10,}|\bsk-[\w-]{20,}|\b[sr]k_(?:live|test)_\w{16,}"  # Slack, OpenAI and others, Stripe
    r"|\bhf_[A-Za-z0-9]{20,}|\bAIza[\w-]{35}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}"  # Hugging Face, Google
    r"|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[\w-]{50,}|\bdop_v1_[0-9a-f]{40,}|\bSG\.[\w-]{16,}\.[\w-]{16,}"
    r"|\beyJ[\w-]{8,300}\.[\w-]{8,}(?:\.[\w-]*)?"  # a JWT
)
"""Tokens that say themselves what they are."""
_PEM: Final = r"(?s)-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY[A-Z ]{0,30}-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)"
_BEARER: Final = r"(?i)\b((?:Bearer|Basic)\s+)[\w.+/=~-]{12,}"
_USER: Final = r"([A-Za-z0-9+.-]{1,20}://)([^/\s'\"<>?#]+)@"
_SIGNED: Final = r"(?i)([?&][\w.-]{0,50}(?:token|key|password|secret|sig|signature|credential)=)[^&\s'\"]+"
_ASSIGNED: Final = r"(?<![\w.-])(?P<name>[A-Za-z_][\w.-]{0,200})(?P<sign>[\"']?\]?\s{0,9}(?:=>?|:(?!//))\s{0,9})(?P<value>\"[^\"\n]*\"?|'[^'\n]*'?|[^\s,;&)}\]\"']+)"
_OPTION: Final = r"(?<![\w-])(?P<name>--?[A-Za-z][\w-]{0,200})(?P<sign>\s{1,9})(?P<value>\"[^\"\n]*\"?|'[^'\n]*'?|[^\s\"'-][^\s\"']*)"
_HINT: Final = r"(?i)pass|secret|credential|key|token|auth|pwd|cookie|pat\b|sas\b"
_RANDOM: Final = r"(?<![A-Za-z0-9+])[A-Za-z0-9+]{24,}={0,2}"
_CHANGES: Final = r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[a-z0-9])|(?<=[0-9])(?=[A-Za-z])"
_CODE: Final = (
    r"(?:str|bytes|int|bool|None|True|False|null|true|false|Any|getpass|os|self|cls|args|config|settings)\b|[\w.]+[([]"
)
"""Bare words behind a name in source text, of which tracebacks are full."""


class SecretRedacted(UserWarning):
    """Something that an experiment was given looks like a secret, and is kept as `***`.

    To have it refused instead, make this warning an error (`warnings.simplefilter("error", aexp.SecretRedacted)`):
    it is issued before anything is written.
    """


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return *text* with `***` for all that looks like a secret.

    That are tokens of well-known forms, private keys, users and passwords of URLs, what is assigned to a name like
    `password` or `api_key`, long words that look random, and values of variables in *environment* with such names.
    """
    if len(text) < SHORTEST:
        return text
    if environment:
        text = _without(text, known_in(environment))
    if re.search(_TOKENS, text):
        text = re.sub(_TOKENS, MARK, text)
    if "-----BEGIN" in text:
        text = re.sub(_PEM, MARK, text)
    if "://" in text:
        text = without_users(text)
    if re.search(_HINT, text):
        text = re.sub(_BEARER, rf"\g<1>{MARK}", text)
        text = re.sub(_ASSIGNED, _unassigned, text)
        text = re.sub(_OPTION, _unassigned, text)
    elif "earer " in text or "asic " in text:
        text = re.sub(_BEARER, rf"\g<1>{MARK}", text)
    return re.sub(_RANDOM, lambda found: MARK if _is_random(found[0]) else found[0], text) if len(text) > 23 else text


def without_users(text: str) -> str:
    """Return *text* without users and passwords of its URLs, and without what signs them."""
    text = re.sub(_USER, lambda found: found[0] if _is_plain_user(found[1], found[2]) else f"{found[1]}{MARK}@", text)
    return re.sub(_SIGNED, rf"\1{MARK}", text)


def _is_plain_user(scheme: str, user: str) -> bool:
    """Say whether *user* is the account of an ssh URL, which is no secret; over http, a name alone may be a token."""
    return ":" not in user and "ssh" in scheme


def is_token(text: str) -> bool:
    """Say whether *text* holds a token that cannot be taken for anything else."""
    return re.search(_TOKENS, text) is not None or ("://" in text and text != without_users(text))


def known_in(environment: Mapping[str, str]) -> list[str]:
    """Return the values of the variables that hold secrets by their names, the longest first."""
    found = {
        value for name, value in environment.items() if len(value) >= SHORTEST and hides(name, value) and value != MARK
    }
    return sorted(found, key=len, reverse=True)


def hides(name: str, value: object) -> bool:
    """Say whether *value* is a secret, because it is called *name*."""
    kind = _kind_of(name)
    if kind == "secret":
        return isinstance(value, str) and value != "" and value != MARK
    if kind == "password" and not isinstance(value, bool):
        return value not in ("", MARK) if isinstance(value, str) else isinstance(value, int) and abs(value) > 999
    return kind == "perhaps" and isinstance(value, str) and re.fullmatch(_ARBITRARY, value) is not None


@lru_cache(4096)
def _kind_of(name: str) -> str:
    words = [word.lower() for word in re.findall(_WORD, name)]
    if words and words[-1] in ("password", "passwd", "passphrase", "passcode", "secret"):
        return "password"
    pairs = any(second in ("key", "token") and first in _PAIRS.split() for first, second in pairwise(words))
    if pairs or any(word in _NAMES.split() for word in words):
        return "secret"
    return "perhaps" if words and words[-1] in _PERHAPS.split() else ""


class Censor:
    """Takes what looks like a secret out of what one experiment is given, and remembers it.

    So it is also found in the text of an exception later on. *allowed* are the places that keep what they are given, as
    `params.model.api_key`, `message` or `error`, and patterns of them with `*`; *environment* is asked anew each time.
    """

    __slots__ = ("_allowed", "_environment", "_known", "_seen")

    def __init__(self, allowed: Collection[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self._allowed = "|".join(re.escape(each).replace(r"\*", ".*") for each in allowed)
        self._environment = {} if environment is None else environment
        self._known: list[str] | None = None
        self._seen: tuple[str, ...] = ()

    def clean(self, value: T, place: str) -> T:
        """Return the plain *value*, which is to stand at *place*, and warn with `SecretRedacted` of what was taken out."""
        found: dict[str, str] = {}
        self._known = None
        name = next((each for each in reversed(place.split(".")) if _kind_of(each)), "")
        cleaned: T = self._cleaned(value, place, name, found)
        for each in found:
            warnings.warn(
                f"{each} looks like a secret, so {MARK} is kept in its place; "
                f'if it is none, open the repository with Settings(allow_secrets=("{each}",))',
                SecretRedacted,
                stacklevel=3,
            )
        parts = (part for each in found.values() for part in (each, *(user for _, user in re.findall(_USER, each))))
        self._seen += tuple(each for part in parts for each in (part, part.partition(":")[2]) if len(each) >= SHORTEST)
        return cleaned

    def redacted(self, text: str, place: str) -> str:
        """Return *text*, which nobody gave (the words of an exception), without secrets; no warning."""
        if self._allows(place):
            return text
        return redacted(_without(text, self._seen), self._environment)

    def _cleaned(self, value: Any, place: str, name: str, found: dict[str, str]) -> Any:
        if isinstance(value, dict):
            return dict(self._item(key, each, place, name, found) for key, each in value.items())
        if isinstance(value, (list, tuple)):
            return type(value)(self._cleaned(each, place, name, found) for each in value)
        if value is None or isinstance(value, (bool, float)):
            return value
        cleaned = MARK if hides(name, value) else self._text(value) if isinstance(value, str) else value
        if cleaned == value or self._allows(place):
            return value
        found[place] = str(value)
        return cleaned

    def _item(self, key: str, value: Any, place: str, name: str, found: dict[str, str]) -> tuple[str, Any]:
        if len(key) >= SHORTEST and is_token(key):
            key = redacted(found.setdefault(f"the name of a parameter in {place}", key))
        return key, self._cleaned(value, f"{place}.{key}", key if _kind_of(key) else name, found)

    def _text(self, text: str) -> str:
        if len(text) < SHORTEST:
            return text
        if self._known is None:
            self._known = known_in(self._environment)
        return redacted(_without(text, self._known))

    def _allows(self, place: str) -> bool:
        return self._allowed != "" and re.fullmatch(self._allowed, place) is not None


def _without(text: str, known: Collection[str]) -> str:
    for each in known:
        text = text.replace(each, MARK)
    return text


def _unassigned(found: "re.Match[str]") -> str:
    name, value = found["name"], found["value"]
    quote = value[0] if value[0] in "\"'" else ""
    bare = value.strip(quote) if quote else value
    if not hides(name, bare) or (not quote and re.match(_CODE, bare)):
        return found[0]
    return f"{name}{found['sign']}{quote}{MARK}{quote}"


def _is_random(word: str) -> bool:
    """Say whether *word* looks drawn: capitals, small letters and digits that change all the time; no id in hex does."""
    if sum(each.isdigit() for each in word) < 3 or word.isupper() or word.islower():
        return False
    return sum(1 for _ in re.finditer(_CHANGES, word)) >= 0.37 * len(word)
