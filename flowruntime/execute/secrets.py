"""Secrets, resolved late: from the environment, or from files an operator mounts.

Owns: where a secret is looked for. Does not own: `Secret` itself (flowcore.values), redaction (telemetry).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from flowcore.errors import SecretNotFoundError
from flowcore.values import Secret

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
        self._folder = Path(folder)
        self._seen = seen

    def resolve(self, name: str) -> Secret:
        """The secret of that name.

        Raises:
            SecretNotFoundError: it is set nowhere; the message says where it was looked for.
        """
        text = self._text(name)
        if text is None:
            raise SecretNotFoundError(
                f"secret {name!r} is not set; set the environment variable {name}, or {name}_FILE to the "
                f"path of a file that holds it, or put it into {self._folder / name}",
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
        named = self._environ.get(f"{name}_FILE")
        for path in ([Path(named)] if named else []) + [self._folder / name]:
            if path.is_file() and path.stat().st_size <= MAX_SECRET_BYTES:
                return path.read_text(encoding="utf-8").rstrip("\r\n")
        return None
