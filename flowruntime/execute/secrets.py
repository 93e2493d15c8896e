"""Secrets, resolved late: from the environment, or from files an operator mounts.

Owns: where a secret is looked for. Does not own: `Secret` itself (flowcore.values), redaction (telemetry).

Always holds: a name of a workflow file leads to no file but those directly in the secrets folder; other paths
are the operator's, in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from flowcore.errors import SecretNotFoundError
from flowcore.values import Secret

if TYPE_CHECKING:
    from pathlib import Path

MAX_SECRET_BYTES = 1 << 20


class SecretStore:
    """Looks a name up in given values, the environment, the file `NAME_FILE` names, then the secrets folder.

    Args:
        given: secrets set in code, by name; they win.
        folder: one file per secret, as container platforms mount them.
        seen: told of every secret handed out, so that logs and events can mask it.
    """

    def __init__(
        self,
        given: Mapping[str, str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        folder: str = "/run/secrets",
        seen: Callable[[Secret], None] | None = None,
    ) -> None:
        self._given = dict(given or {})
        self._environ = os.environ if environ is None else environ
        self._folder = folder
        self._seen = seen

    def resolve(self, name: str) -> Secret:
        """The secret of that name.

        Raises:
            SecretNotFoundError: it is set nowhere, or what is there cannot be read; the message says where it
                was looked for.
        """
        text = self._text(name)
        if text is None:
            raise SecretNotFoundError(
                f"secret {name!r} is not set; set the environment variable {name}, or {name}_FILE to the "
                f"path of a file that holds it, or put it into {self._folder}/{name}"
                + ("" if _is_plain(name) else "; in a file it needs a name without '/'"),
                name=name,
            )
        secret = Secret(text, name=name)
        if self._seen is not None:
            self._seen(secret)
        return secret

    def _text(self, name: str) -> str | None:
        if name in self._given:
            return self._given[name]
        if name in self._environ:
            return self._environ[name]
        from pathlib import Path  # only where a file is looked for: it would cost every start

        named = self._environ.get(f"{name}_FILE")
        places = [Path(named)] if named else []
        if _is_plain(name):
            places.append(Path(self._folder) / name)
        return next((text for path in places if (text := _content(name, path)) is not None), None)


def _is_plain(name: str) -> bool:
    """Whether it names a file of a folder, and nothing above, below or beside it."""
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name


def _content(name: str, path: Path) -> str | None:
    """The text of a file without its last line ends; None when there is no such file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise _unreadable(name, path, getattr(fault, "strerror", None) or str(fault)) from fault
    if len(raw) > MAX_SECRET_BYTES:
        raise _unreadable(name, path, f"it has more than {MAX_SECRET_BYTES} bytes")
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:  # without its cause, which holds the secret
        reason = "it is not UTF-8 text"
    raise _unreadable(name, path, reason)


def _unreadable(name: str, path: Path, reason: str) -> SecretNotFoundError:
    return SecretNotFoundError(
        f"secret {name!r}: the file {str(path)!r} cannot be read: {reason}", name=name, reason=reason
    )
