#!/usr/bin/env python3
"""Lists of what programs are made of (CycloneDX), for a release.

    parts.py list FROM TO      takes out of a list what differs from run to run and from machine to machine: its serial number, and this
                               machine's paths, by which cargo calls the workspace's own crates
    parts.py folders           prints name and folder of each crate of the workspace, from what `cargo metadata` says on stdin
"""

import json
import os
import re
import sys


def plain(text, here):
    """A list, as text, without what is not the same everywhere."""
    parts = json.loads(re.sub(rf"file://{re.escape(here)}", "file:///sidestep", text))
    # Optional: a list that is the same has no number of its own.
    parts.pop("serialNumber", None)
    return json.dumps(parts, indent=1, sort_keys=True) + "\n"


def main():
    match sys.argv[1:]:
        case ["list", source, target]:
            with open(source, encoding="utf-8") as file:
                text = plain(file.read(), os.getcwd())
            with open(target, "w", encoding="utf-8") as file:
                file.write(text)
        case ["folders"]:
            for package in json.load(sys.stdin)["packages"]:
                print(package["name"], os.path.dirname(package["manifest_path"]))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
