"""What may be a name: of an experiment, a metric, a tag or a file; and new names and ids."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from itertools import pairwise

from ._secrets import is_token
from .errors import InvalidName, UnsafePath

# Only Git's own `check-ref-format` (https://git-scm.com/docs/git-check-ref-format) forces most of this; the rest
# keeps a name usable as a revision, as an option's value in a shell and as a file on every system.
_FORBIDDEN = r"(?i)[/~^:?*\[\\]|\.\.|@\{|\A[-.]|\.\Z|\.lock\Z"
_HEX_ID = r"(?i)[0-9a-f]{4,40}"
_PSEUDO_REF = r"HEAD|[A-Z_]+_HEAD|EXEC_.*"
# Folders that DVC keeps below refs/exps/, and its word for the work tree (dvc/repo/experiments/refs.py).
_RESERVED = frozenset({"@", "head", "workspace", "apply", "celery", "exec", "temp", "stash"})
_DEVICE = r"(?i)(?:con(?:in\$|out\$)?|prn|aux|nul|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]) *(?:\.|\Z)"

_KINDS = {
    "Cc": "a control character",
    "Cf": "an invisible format character",
    "Cs": "half of a surrogate pair, which is no character",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
    "Zs": "white space",
}


def check_experiment_name(name: object) -> str:
    """The name in Unicode form NFC, when Git, DVC and every disk can hold it; raises `InvalidName` otherwise."""
    if not isinstance(name, str):
        raise InvalidName("an experiment", name, f"it is of type {type(name).__name__}, not str")
    composed = unicodedata.normalize("NFC", name)
    fault = "it looks like a secret, and names are written down" if is_token(name) else _experiment_fault(composed)
    if fault is not None:
        raise InvalidName("an experiment", name, fault)
    return composed


def _experiment_fault(name: str) -> str | None:
    """Why no experiment can be called `name`; None when one can."""
    if not name:
        return "it is empty; leave the name out to be given one"
    for character in name:
        kind = _KINDS.get(unicodedata.category(character))
        if kind is not None:
            return f"it contains {kind} (U+{ord(character):04X}); join words with `-` or `_`"
    if len(name.encode()) > 200:
        return f"it is {len(name.encode())} bytes long in UTF-8, and 200 is the limit"
    found = re.search(_FORBIDDEN, name)
    if found is not None:
        return f"Git allows no {found[0]!r} at position {found.start()}; letters, digits, `-`, `_` and `.` are safe"
    if re.fullmatch(_HEX_ID, name):
        return "it looks like the id of a commit; add a letter after f, or a `-`"
    if name.casefold() in _RESERVED or re.fullmatch(_PSEUDO_REF, name):
        return "Git or DVC uses this word for something else; add a word to it"
    if re.match(_DEVICE, name):
        return "Windows keeps this word for a device, so nobody could fetch the experiment there; add a word before it"
    return None


def is_holdable(name: str) -> bool:
    """Say whether a disk and a terminal can hold the *name* that somebody else gave an experiment.

    More lenient than `check_experiment_name`, since DVC's users call theirs `2024` or `HEAD`, too.
    """
    return (
        0 < len(name.encode("utf-8", "surrogateescape")) <= 200
        and unicodedata.is_normalized("NFC", name)
        and not any(unicodedata.category(character) in _KINDS for character in name)
        and re.search(_FORBIDDEN, name) is None
    )


# A control character, half of a surrogate pair, or a segment that is empty, `.` or `..`: one search per logged name.
_BAD_METRIC = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]|(?:\A|/)\.{0,2}(?=/|\Z)"


def check_metric_name(name: object) -> str:
    """The name as it is, when it can be a metric's; raises `InvalidName`, or `TypeError` for what is no str.

    A name has 1 to 255 characters, none of them a control character; `/` makes groups, of which none is empty, `.`
    or `..`. It is not normalised: two names that look alike may be two metrics.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a metric must be a str, not {type(name).__name__}")
    if len(name) > 255:
        raise InvalidName("a metric", name, f"it is {len(name)} characters long, and 255 is the limit")
    found = re.search(_BAD_METRIC, name)
    if found is None:
        return name
    if not name:
        raise InvalidName("a metric", name, "it is empty")
    if found[0].strip("/."):
        kind = _KINDS[unicodedata.category(found[0])]
        raise InvalidName("a metric", name, f"it contains {kind} (U+{ord(found[0]):04X})")
    raise InvalidName("a metric", name, "a part between slashes is empty, `.` or `..`")


_UNSAFE_IN_FILES = r"""[%\\:*?"<>|]|\A\.|[ .]\Z|~(?=[0-9])"""
_CUT = r"%[0-9a-f]{40}\Z"


@lru_cache(4096)
def metric_file(name: str) -> str:
    """The path of the metric's table below the folder of metrics: `train/loss` stands in `train/loss.tsv`.

    What a file system or Git might misread is percent-encoded as in a URL, so no two names share a file, no file
    stands where another metric needs a folder, and no path leaves the folder. Two names that differ only in case
    get two paths that differ only in case: on a disk that ignores case, only one of them can be checked out.
    """
    *folders, last = check_metric_name(name).split("/")
    parts = [_file_segment(part, name, folder=True) for part in folders]
    return "/".join([*parts, _file_segment(last, name, folder=False) + ".tsv"])


def _file_segment(segment: str, name: str, *, folder: bool) -> str:
    """One segment of `metric_file(name)`; a long one is cut and told apart by the hash of the whole name."""
    marks = {found.start() for found in re.finditer(_UNSAFE_IN_FILES, segment)}
    marks.update(at for at, char in enumerate(segment) if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp"))
    if re.match(_DEVICE, segment):
        marks.add(0)
    if folder and segment.lower().endswith(".tsv"):
        marks.add(len(segment) - 4)
    encoded = _percent_encoded(segment, marks)
    if not unicodedata.is_normalized("NFC", encoded):  # macOS would take both spellings of an accent for one file
        marks.update(at for at, char in enumerate(segment) if not char.isascii())
        encoded = _percent_encoded(segment, marks)
    # What merely looks like a cut name is cut too: otherwise it could be the path of another metric.
    if len(encoded.encode()) > 200 or re.search(_CUT, encoded):
        digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        return f"{encoded.encode()[:120].decode(errors='ignore')}%{digest}"
    return encoded


def _percent_encoded(segment: str, marks: set[int]) -> str:
    """The segment, with the characters at the positions `marks` as `%XX` for each byte of UTF-8."""
    if not marks:
        return segment
    return "".join(
        "".join(f"%{byte:02X}" for byte in char.encode()) if at in marks else char for at, char in enumerate(segment)
    )


def check_tag(tag: object) -> str:
    """The tag as it is: 1 to 100 characters, no comma, no white space around it; raises `InvalidName` otherwise."""
    if not isinstance(tag, str):
        raise InvalidName("a tag", tag, f"it is of type {type(tag).__name__}, not str")
    if not 1 <= len(tag) <= 100:
        raise InvalidName("a tag", tag, f"it has {len(tag)} characters, and a tag has 1 to 100")
    if tag != tag.strip():
        raise InvalidName("a tag", tag, "it begins or ends with white space")
    if "," in tag:
        raise InvalidName("a tag", tag, "it contains a comma, which separates tags; pass several tags instead")
    for character in tag:
        kind = unicodedata.category(character)
        if kind in ("Cc", "Cs"):
            raise InvalidName("a tag", tag, f"it contains {_KINDS[kind]} (U+{ord(character):04X})")
    return tag


# What aexp itself writes below an experiment's folder (_layout.py).
_OWN_FILES = ("dvc.yaml", "params.yaml", "metrics.json", "experiment.json", "plots/metrics")
# Short names that NTFS gives to `.git`, `.gitmodules` and the like: git~1, gitmod~1, gi7eba~1.
_HARMLESS = r"[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*"
"""A name that no system takes for another: letters, digits, `-`, `_`, and single dots inside."""
_SHORT_NAME = r"gi[^~]{0,6}~[0-9].*"


def check_file_path(path: str | os.PathLike[str], *, folder: str) -> str:
    """The path, relative to the repository and with `/` between its parts, when an experiment may hold a file there.

    `folder` is the experiment's own folder. Raises `UnsafePath` for a path that leaves the repository, that Git or
    DVC takes its configuration from on some system, or where aexp itself writes a file.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path must be a str or name one, not {type(text).__name__}")
    segments = [segment for segment in text.split("/") if segment != "."]
    fault = _path_fault(text, segments) or _folder_fault(segments, folder)
    if fault is not None:
        raise UnsafePath(text, fault)
    return "/".join(segments)


def _path_fault(text: str, segments: list[str]) -> str | None:
    """Why no experiment may hold a file at these segments, whatever its folder; None when it may."""
    if text.startswith("/") or re.match(r"[A-Za-z]:", text):
        return "it is absolute; pass a path relative to the repository"
    if not segments or "" in segments:
        return "it names no file, or a part of it is empty"
    if ".." in segments:
        return "it goes up with `..`"
    for character in text:
        kind = unicodedata.category(character)
        if character == "\\" or kind in ("Cc", "Cs"):
            return f"it contains {_KINDS.get(kind, 'a backslash')} (U+{ord(character):04X})"
    if any(len(segment.encode()) > 255 for segment in segments):
        return "a part of it is longer than 255 bytes, which no disk can hold"
    bare = [_undisguised(segment) for segment in segments]
    if any(segment in (".git", ".gitmodules") or re.fullmatch(_SHORT_NAME, segment) for segment in bare):
        return "Git keeps its own files under this name"
    for parent, child in pairwise(bare):
        if parent == ".dvc" and (child.startswith("config") or child == "tmp"):
            return "DVC keeps its settings and temporary files there"
    return None


def work_tree_fault(path: str) -> str | None:
    """Why no commit may bring a file to this path of a work tree; None when it may. Bytes that are no UTF-8 may stand in it."""
    if re.fullmatch(_HARMLESS, path):  # so are nearly all, and data comes in hundreds of thousands of files
        return None
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            return "a part of it is empty, `.` or `..`"
        if any(character < " " or "\x7f" <= character <= "\x9f" or character == "\\" for character in segment):
            return "it contains a control character or a backslash"
        bare = segment.casefold() if segment.isascii() and segment[-1] not in " ." else _undisguised(segment)
        if bare.partition(":")[0] == ".git" or (bare[:2] == "gi" and re.fullmatch(_SHORT_NAME, bare)):
            return "Git keeps its own files under this name"
    return None


def guard(path: str, settings: Collection[str]) -> str | None:
    """Why a commit may bring a file to this path only when a person asks for it by name; None when it always may.

    *settings* are the files and folders, case folded, from which Git here takes settings or hooks.
    """
    bare = [_undisguised(segment) for segment in path.split("/")]
    if bare[-1] == ".gitattributes":
        return "attributes say which filters and drivers Git runs"
    if bare == [".gitmodules"]:
        return "it says where Git finds submodules"
    for parent, child in pairwise(bare):
        if parent == ".dvc" and (child.startswith("config") or child in ("tmp", "cache")):
            return "DVC keeps its settings and its own data there"
    folded = path.casefold()
    if any(folded == each or folded.startswith(f"{each}/") for each in settings):
        return "Git takes settings or hooks from it here"
    return None


def leads_out(path: str, target: str) -> str | None:
    """Why a symbolic link at *path* to *target* is written only when it is asked for by name; None when it always may be."""
    if target.startswith("/"):
        return "a link to an absolute path"
    depth, place = path.count("/"), path.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            place = place[:-1]
        elif part not in ("", "."):
            depth += 1
            place.append(part)
        if depth < 0:
            return "a link that leads out of the repository"
        if place and _undisguised(place[-1]) == ".git":
            return "a link into Git's own folder"
    return None


def _folder_fault(segments: list[str], folder: str) -> str | None:
    """Why a file at these segments would be in the way of what aexp writes below `folder`; None when it is not."""
    home = [segment for segment in folder.split("/") if segment not in ("", ".")]
    bare = [_undisguised(segment) for segment in segments]
    for own in _OWN_FILES:
        taken = [_undisguised(segment) for segment in [*home, *own.split("/")]]
        if all(mine == theirs for mine, theirs in zip(taken, bare, strict=False)):  # at it, above it or below it
            return f"aexp itself writes {'/'.join([*home, own])}; choose another name"
    return None


def _undisguised(segment: str) -> str:
    """The segment as other file systems read it: HFS+ drops invisible characters, NTFS trailing dots and spaces."""
    visible = "".join(character for character in segment if unicodedata.category(character) != "Cf")
    return visible.casefold().partition(":")[0].rstrip(" .")


def check_artifact_name(name: object) -> str:
    """The name if dvc.yaml can give it to an artifact: letters, digits, `-`, `_` and `/`, the first and last not of these."""
    if not isinstance(name, str):
        raise TypeError(f"the name of an artifact is a str, not {type(name).__name__}")
    if len(name) > 255 or not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9-/_]*[a-zA-Z0-9])?", name):  # gto/constants.py
        raise InvalidName(
            "an artifact", name, "DVC takes letters, digits, `-`, `_` and `/`, with a letter or digit first and last"
        )
    return name


def new_id(milliseconds: int, entropy: bytes) -> str:
    """The UUID of version 7 (RFC 9562, section 5.7) for this time and these 10 random bytes: 32 hex digits.

    Ids sort by their time. Raises `ValueError` for a time before 1970 or after 10889, or another number of bytes.
    """
    if not 0 <= milliseconds < 1 << 48:
        raise ValueError(f"{milliseconds} ms does not fit the 48 bits that a UUID has for the time")
    if len(entropy) != 10:
        raise ValueError(f"an id takes 10 random bytes, not {len(entropy)}")
    bits = int.from_bytes(entropy, "big")
    high, low = bits >> 62 & 0xFFF, bits & (1 << 62) - 1
    return f"{milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low:032x}"


_ADJECTIVES = (  # 64
    "agile airy amber ample apt bold brave breezy bright brisk calm clean clear clever cool cosy crisp dapper "
    "deft eager early easy fair fast fine fleet fluent fond free fresh gentle glad golden grand happy hardy "
    "jolly keen kind light lively loyal lucid lucky merry mild neat noble patient plain polite proud quick "
    "quiet rapid rosy serene sharp shiny steady sunny swift tidy warm"
)
_NOUNS = (  # 64
    "acorn alder aspen badger beaver birch bison brook canyon cedar cliff clover comet coral crane creek delta "
    "falcon fern finch fjord fox glacier harbor hare hazel heron island ivy jay koala lagoon lark lemur linden "
    "lotus lynx maple marten meadow moose moss oak oasis orchid otter owl panda pebble pine plover prairie "
    "puffin raven reef river robin salmon sparrow spruce swan tulip walnut willow"
)


def random_name(entropy: bytes) -> str:
    """Two words and a number, such as `calm-otter-4821`, chosen by 4 random bytes or more; calls may repeat one."""
    if len(entropy) < 4:
        raise ValueError(f"a name takes 4 random bytes or more, not {len(entropy)}")
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    rest, adjective = divmod(int.from_bytes(entropy, "big"), len(adjectives))
    rest, noun = divmod(rest, len(nouns))
    return f"{adjectives[adjective]}-{nouns[noun]}-{rest % 10_000}"


def check_message(text: object) -> str:
    """The text if a commit message can hold it: no NUL, no lone surrogate. Raises `TypeError` or `ValueError`."""
    if not isinstance(text, str):
        raise TypeError(f"a message is a str, not {type(text).__name__}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidName("a message", text, "it holds a NUL or a lone surrogate, which no commit can")
    return text
