"""Numbers as bodies may have them: those that every JSON reader holds exactly."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

SAFE_INTEGER_MAX = 2**53 - 1
GB_MAX, MB_MAX = 2**23 - 1, 2**33 - 1
"""So that their bytes are such numbers, too."""

Integer = Annotated[int, Meta(ge=-SAFE_INTEGER_MAX, le=SAFE_INTEGER_MAX)]
Count = Annotated[int, Meta(ge=0, le=SAFE_INTEGER_MAX)]
CountFromOne = Annotated[int, Meta(ge=1, le=SAFE_INTEGER_MAX)]
Number = Annotated[float, Meta(ge=-SAFE_INTEGER_MAX, le=SAFE_INTEGER_MAX)]
