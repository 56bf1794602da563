"""The command line of a peer: ``PORT``, and what this peer can do besides."""

from __future__ import annotations

import argparse

#: Connections not yet accepted: a thousand clients come at once, and a dropped SYN costs its client a second.
BACKLOG = 1024


def parse(*options: str) -> argparse.Namespace:
    """
    Read the command line.

    :param options: the names of flags; a name that ends in ``=`` takes a value.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    for option in options:
        if option.endswith("="):
            parser.add_argument(f"--{option[:-1]}", default="")
        else:
            parser.add_argument(f"--{option}", action="store_true")
    return parser.parse_args()
