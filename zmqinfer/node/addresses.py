"""Addresses as people write them."""

from __future__ import annotations

from collections.abc import Iterable

from zmqinfer.errors import ConfigError

__all__ = ["addresses_of"]


def addresses_of(given: str | Iterable[str]) -> list[str]:
    """Returns the addresses in a list or a text with commas, each once.

    Raises:
        ConfigError: there is none, or one that is neither tcp://HOST:PORT nor ipc://PATH.
    """
    texts = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    if any(not isinstance(text, str) for text in texts):
        raise ConfigError(f"gateway addresses are {given!r}, expected text, such as tcp://127.0.0.1:5555, or a list")
    addresses = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not addresses:
        raise ConfigError("no gateway address was given, expected for example tcp://127.0.0.1:5555")
    for address in addresses:
        scheme, _, rest = address.partition("://")
        host, _, port = rest.rpartition(":")
        is_tcp = scheme == "tcp" and host and port.isdecimal() and int(port) < 65_536
        if not is_tcp and not (scheme == "ipc" and rest):
            raise ConfigError(f"address {address!r} is neither tcp://HOST:PORT nor ipc://PATH")
    return list(dict.fromkeys(addresses))
