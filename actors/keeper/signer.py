"""Signs places of the chain, so that the log itself can say how far the keeper had come."""

from __future__ import annotations

import hashlib
import hmac

from bus.vault import derived
from schemas.keeper import Checkpoint

PURPOSE = "vx11 keeper checkpoints"


class Signer:
    """HMAC-SHA-256 of `stream, generation, sequence, hash, at`, one a line.

    Only who has the key can check it; nobody else has to: what the log says is compared by the keeper.
    """

    def __init__(self, key: bytes, stream: str) -> None:
        self._key = derived(key, PURPOSE)
        self._stream = stream

    def sign(self, generation: int, sequence: int, hash_: str, at: str) -> Checkpoint:
        """`generation`: the number of this checkpoint among all of the stream's."""
        text = f"{self._stream}\n{generation}\n{sequence}\n{hash_}\n{at}"
        signature = hmac.digest(self._key, text.encode(), hashlib.sha256).hex()
        return Checkpoint(generation=generation, sequence=sequence, hash=hash_, at=at, signature=signature)

    def is_ours(self, told: Checkpoint) -> bool:
        mine = self.sign(told.generation, told.sequence, told.hash, told.at)
        return hmac.compare_digest(mine.signature, told.signature)
