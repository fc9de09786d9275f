"""Addresses: in which order those of a host are tried. Pure.

A dial ends by its own deadline, whatever it has come to: were the order always the same, dead
addresses at its head, or one that accepts and then says nothing, would hide a healthy one for good.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any


@dataclass(frozen=True, slots=True)
class Address:
    """One place to connect to: a family of socket(7) and what connect(2) takes."""

    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class AddressOrder:
    """What the dials of one host remember: addresses that failed, which go last."""

    def __init__(self) -> None:
        self._tried: dict[Address, None] = {}  # without success since; the latest is the last

    def of(self, addresses: Sequence[Address]) -> list[Address]:
        """Return the addresses as given, but those tried in vain last, the oldest first."""
        ranks = {address: rank for rank, address in enumerate(self._tried)}
        self._tried = {address: None for address in self._tried if address in addresses}
        return sorted(addresses, key=lambda address: ranks.get(address, -1))

    def tried(self, address: Address) -> None:
        """Take note that an attempt begins; unless ``succeeded`` comes it was in vain."""
        self._tried.pop(address, None)
        self._tried[address] = None

    def succeeded(self) -> None:
        """Forget the latest attempt: it led to a session."""
        if self._tried:
            self._tried.popitem()


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses with families taking turns, each in its order (RFC 8305 section 4)."""
    families: dict[int, list[Address]] = {}
    for address in dict.fromkeys(addresses):  # hosts(5) may name one twice
        families.setdefault(address.family, []).append(address)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [address for address in turns if address is not None]
