"""The secrets that the interceptor's process holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from . import placeholders
from .messages import Setup


@dataclass(frozen=True, slots=True)
class Held:
    """A secret and its placeholder. header: lower case."""

    name: str
    secret: bytes
    placeholder: bytes
    hosts: tuple[str, ...]
    header: bytes


def hold(setup: Setup, values: dict[str, str]) -> tuple[Held, ...]:
    """Every secret with its placeholder. values: by name. Raises ValueError, without a value."""
    held = []
    for wanted in setup.secrets:
        value = values.get(wanted.name, "")
        fault = placeholders.fault(value)
        if fault is not None:
            raise ValueError(f"the secret {wanted.name} cannot be used: {fault}.")
        held.append(
            Held(
                name=wanted.name,
                secret=value.encode(),
                placeholder=(wanted.placeholder or placeholders.make(value)).encode(),
                hosts=wanted.hosts,
                header=wanted.header.lower().encode(),
            )
        )
    return tuple(held)
