"""What every room raises."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend. The CLI prints the message as one line and exits with 2."""
