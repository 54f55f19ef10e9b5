"""What a user can cause."""


class LvaeError(Exception):
    """One line for a person: what is wrong, where, and what to do. The command line prints it and exits with 1."""
