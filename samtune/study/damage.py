"""What is found in a study's folder that samtune has not left so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """Something in a study's folder that is not as it should be.

    Attributes:
        where: the file, seen from the study's folder.
        found: what is wrong with it.
        remedy: what becomes of it, or what would do.
        is_harmless: nothing is lost by it, as by what a kill leaves behind.
    """

    where: str
    found: str
    remedy: str
    is_harmless: bool = False

    def __str__(self) -> str:
        return f"{self.where} {self.found}; {self.remedy}"
