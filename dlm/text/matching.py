"""Two tokenizers, one text: which id of one means what an id of the other means."""

from __future__ import annotations

from typing import Final

from dlm.errors import InvalidRequest
from dlm.text.text import Text

MISSING: Final = -1
SHOWN: Final = 3
"""How many pieces without a partner an error names."""


def id_map(param: str, ours: Text, theirs: Text) -> list[int]:
    """For each id of `ours` the id of the same piece in `theirs`; control tokens may lack one (-1).

    End tokens stand for each other, however they are spelled. Raises `InvalidRequest` naming
    `param` unless every other piece has its partner.
    """
    partner = {piece: index for index, piece in enumerate(theirs.vocabulary.pieces()) if piece}
    control = ours.special_ids()
    pieces = ours.vocabulary.pieces()
    lost = [p for i, p in enumerate(pieces) if p and p not in partner and i not in control]
    if lost:
        raise InvalidRequest(
            param,
            "its vocabulary must contain every piece of the model's one to one; it lacks "
            f"{len(lost)} of {len(pieces)}: {', '.join(map(repr, lost[:SHOWN]))}, ...",
        )
    found = [partner.get(piece, MISSING) if piece else MISSING for piece in pieces]
    ends = theirs.end_ids()
    for end in ours.end_ids() if ends else ():
        found[end] = found[end] if found[end] in ends else ends[0]
    return found
