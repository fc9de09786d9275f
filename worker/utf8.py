"""UTF-8: what a peer may send as text (RFC 6455 section 5.6), and what of it may be shown. Pure."""


def is_utf8(text: bytes) -> bool:
    """Return whether a text is valid UTF-8 (RFC 6455 section 8.1)."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def printable(text: str) -> str:
    """Return a peer's words without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)
