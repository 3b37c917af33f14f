#!/usr/bin/env python3
"""Takes out of a CycloneDX list of parts what differs from run to run and from machine to machine: its serial number, and this machine's
paths, by which cargo calls the workspace's own crates.

    parts.py FROM TO
"""

import json
import os
import re
import sys


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        text = file.read()
    here = re.escape(os.getcwd())
    text = re.sub(rf"(path\+)?file://{here}", "file:///sidestep", text)
    parts = json.loads(text)
    # It is optional; a list that is the same has none that is its own.
    parts.pop("serialNumber", None)
    with open(target, "w", encoding="utf-8") as file:
        json.dump(parts, file, indent=1, sort_keys=True)
        file.write("\n")


if __name__ == "__main__":
    main()
