"""The one exception for what a user can cause."""


class LvaeError(Exception):
    """Shown as one line, without a traceback: what is wrong, where, and what to do.

    Names and reasons in it come from files of any kind, so that what is not printable is escaped.
    """

    def __init__(self, text: str):
        super().__init__("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text))
