"""Inputs in hand: those of jobs that wait, loaded and ready to go out with them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from runyard.domain.job import Job
from runyard.domain.payload import Spilled

HAND_BYTES_MAX = 64 << 20
"""In hand in all; one that is larger may be there alone."""
ANSWER_BYTES_MAX = 32 << 20
"""Large inputs in one answer, if it has more than one."""


class Hand:
    """Bytes by what names them. When they are too many, those go first that came first: they can be loaded again."""

    def __init__(self, *, bytes_max: int = HAND_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._inputs: OrderedDict[str, bytes] = OrderedDict()
        self.bytes = 0

    def __contains__(self, ref: str) -> bool:
        return ref in self._inputs

    def get(self, ref: str) -> bytes | None:
        return self._inputs.get(ref)

    def has_room(self, size: int) -> bool:
        """For so many bytes, so that nothing goes for them."""
        return self.bytes + size <= self._bytes_max

    def put(self, ref: str, data: bytes) -> None:
        self.drop(ref)
        while self._inputs and not self.has_room(len(data)):
            self.drop(next(iter(self._inputs)))
        self._inputs[ref] = data
        self.bytes += len(data)

    def drop(self, ref: str) -> None:
        """Nothing happens when it is not here (any more)."""
        self.bytes -= len(self._inputs.pop(ref, b""))


class Batch:
    """The large inputs of one answer. What it has found in hand it has, even if that goes from there."""

    __slots__ = ("_found", "_hand", "_room", "asked", "missing")

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._found: dict[str, bytes] = {}
        self._room = ANSWER_BYTES_MAX
        self.asked = False
        """There was a large one."""
        self.missing: Job | None = None
        """That whose input was not in hand."""

    def has_room_for(self, job: Job) -> bool:
        """Whether this job, the next of those with large inputs, can go out with this answer."""
        assert isinstance(job.input, Spilled)
        self.asked = True
        ref, size = job.input
        data = self._hand.get(ref)
        if data is None:
            self.missing = job
            return False
        if self._found and size > self._room:
            return False
        self._found[ref] = data
        self._room -= size
        return True

    def filled(self, jobs: Sequence[Job]) -> list[Job]:
        """Jobs with their inputs; large ones are to be such as were found."""
        return [
            job._replace(input=self._found[job.input.ref]) if isinstance(job.input, Spilled) else job for job in jobs
        ]

    def handed_over(self) -> None:
        """They have gone out."""
        for ref in self._found:
            self._hand.drop(ref)
