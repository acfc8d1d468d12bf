"""The one exception that users see."""


class UserError(Exception):
    """One sentence that says what is wrong and what to do; the entry point prints it and exits with 1."""
