"""What the library advises, as commands: its messages name calls, and who types wants verbs and flags."""

import re
from typing import Final

_ADVICE: Final = (
    (r"`?(?:await repository\.)?experiments\(\)`? lists", "`aexp list --all` lists"),
    (r"`?(?:await repository\.)?remote_experiments\([^)]*\)`?", "`aexp list REMOTE`"),
    (r"`?(?:await repository\.)?maintain\(\)`?", "`aexp maintain`"),
    (r"`?(?:await repository\.)?recover\(salvage=True\)`?", "`aexp recover --salvage`"),
    (r"`?(?:await repository\.)?recover\(\)`?", "`aexp recover`"),
    (r",? (?:or )?`?(?:await repository\.)?resume\([^)]*\)`? goes on with it", ""),
    (r"`?(?:await repository\.)?remove\((['\"])(.+?)\1\)`?", r"`aexp remove \2`"),
    (r"`?(?:await repository\.)?undo_apply\(\)`?", "`aexp undo`"),
    (r"`?(?:await repository\.)?restore\(\)`?", "`aexp restore`"),
    (r"`?(?:await repository\.)?interrupted\(\)`? lists what can be resumed", "`aexp interrupted` lists what there is"),
    (r"`?(?:await repository\.)?push\((['\"])(.+?)\1\)`?", r"`aexp push REMOTE \2`"),
    (r"`?(?:await repository\.)?push\(\)`?", "`aexp push REMOTE`"),
    (r"`?push\(force=True\)`? replaces", "`aexp push --force` replaces"),
    (r"save\(force=True\) makes", "--force makes"),
    (r"`?force=True`?", "--force"),
    (r"pass `baseline=` with a commit", "name a commit with --rev"),
)


def as_commands(text: str) -> str:
    """Return a message of the library with verbs and flags in the place of calls."""
    for pattern, verb in _ADVICE:
        text = re.sub(pattern, verb, text)
    return text
