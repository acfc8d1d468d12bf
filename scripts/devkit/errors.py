"""The one exception that users see."""


class UserError(Exception):
    """One sentence that says what is wrong and what to do; the entry point prints it and exits with 1."""


class UnreachableError(UserError):
    """Nobody answers there, so nothing is known of what runs."""


def printable(text: str) -> str:
    """A text that no terminal takes for a command: what cannot be printed is written out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def most_telling(log: str) -> str:
    """The last line of a log that speaks of an error, or else its last line."""
    lines = log.strip().splitlines() or ["it said nothing"]
    # A server's last words may say only that there was an error above.
    telling = [line for line in lines if "error" in line.lower() and "correct these errors" not in line]
    return (telling or lines)[-1].strip()
