"""Credentials: a reference to a secret, and the secret behind it.

A configuration names secrets and never holds them. They are read when they are needed and not
kept, so that a rotated key is the new one at the next dial. No error here quotes what it read.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec

from worker.spec import Secret

LIMIT_BYTES = 64 * 1024
MASK = "***"
MASKED_MIN = 4  # characters: a shorter value is in too many words, and no secret
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"  # systemd.exec(5)


class SecretMissing(Exception):
    """A secret that is not there or not usable. ``mend`` says what to do about it."""

    def __init__(self, secret: Secret, why: str, mend: str) -> None:
        super().__init__(secret, why, mend)
        self.secret, self.why, self.mend = secret, why, mend

    def __str__(self) -> str:
        return f"{self.secret}: {self.why}; {self.mend}"


def resolve(secret: Secret) -> str:
    """
    Return the secret: a variable's value, or the first line of a file without its line end.

    Raises:
        SecretMissing: If there is none, or it is empty, too long, no UTF-8, or in no regular file.

    """
    if secret.kind == "env":
        return _from_environment(secret)
    if secret.kind == "file":
        return _first_line(secret, Path(secret.value), "create it, readable to this user only")
    return _first_line(secret, _credential_path(secret), _load_credential(secret))


def masked(text: str, secrets: Iterable[str]) -> str:
    """
    Return a text of somebody else's with these values made unreadable, in URLs and JSON too.

    An operator's function raises what its HTTP client says, and that quotes the URL.
    """
    written = {
        form
        for value in secrets
        if len(value) >= MASKED_MIN
        for form in (
            value,
            quote(value),
            quote(value, safe=""),
            quote_plus(value),
            msgspec.json.encode(value).decode()[1:-1],
            repr(value)[1:-1],
        )
    }
    for form in sorted(written, key=len, reverse=True):  # one may begin with another
        text = text.replace(form, MASK)
    return text


def _from_environment(secret: Secret) -> str:
    mend = f"set the environment variable {secret.value}"
    value = os.environ.get(secret.value)
    if value is None:
        raise SecretMissing(secret, "is not set", mend)
    if not value:
        raise SecretMissing(secret, "is empty", mend)
    try:
        value.encode()  # os.environ smuggles undecodable bytes in as surrogates
    except UnicodeEncodeError:
        raise SecretMissing(secret, "is no UTF-8", mend) from None
    return value


def _credential_path(secret: Secret) -> Path:
    name = secret.value
    if "/" in name or name in ("", ".", ".."):
        mend = "name the credential as in LoadCredential=, without a path"
        raise SecretMissing(secret, "is no name of a credential", mend)
    directory = os.environ.get(CREDENTIALS_VARIABLE)
    if not directory:
        why = f"{CREDENTIALS_VARIABLE} is not set: systemd passed no credentials"
        raise SecretMissing(secret, why, _load_credential(secret))
    return Path(directory, name)


def _load_credential(secret: Secret) -> str:
    return f"add LoadCredential={secret.value}:/path/to/it to the unit and restart it"


def _first_line(secret: Secret, path: Path, mend: str) -> str:
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to would never return.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretMissing(secret, f"cannot be opened: {error.strerror}", mend) from error
    except ValueError:  # a NUL in the path
        raise SecretMissing(secret, "is no path", mend) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SecretMissing(secret, "is no regular file", mend)
        with open(descriptor, "rb", closefd=False) as file:
            raw = file.readline(LIMIT_BYTES + 2)  # room for the line end
    except OSError as error:
        raise SecretMissing(secret, f"cannot be read: {error.strerror}", mend) from error
    finally:
        os.close(descriptor)
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if len(raw) > LIMIT_BYTES:
        raise SecretMissing(secret, f"its first line has more than {LIMIT_BYTES} bytes", mend)
    if not raw:
        raise SecretMissing(secret, "its first line is empty", mend)
    try:
        return raw.decode()
    except UnicodeDecodeError:  # whose text, and chain, would quote the bytes
        raise SecretMissing(secret, "its first line is no UTF-8", mend) from None
