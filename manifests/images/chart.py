#!/usr/bin/env python3
"""Packs the chart: as the .tgz that `helm install` takes, and that as an OCI archive, as Helm pushes it to a registry.

The same chart always gives the same bytes, which `helm package` does not: names are sorted, times are zero, owners are root.

    chart.py --chart manifests/chart --archive sidestep-0.1.0.tgz --oci chart.tar
"""

import argparse
import gzip
import io
import os
import tarfile

import yaml

from oci import Archive, entry


def packed(chart, name):
    """The chart's files as Helm packs them: below a folder with the chart's name, Chart.yaml first."""
    names = []
    for folder, _, files in os.walk(chart):
        # .helmignore leaves out what begins with a dot and what editors leave.
        names += [os.path.relpath(os.path.join(folder, file), chart) for file in files
                  if not file.startswith(".") and not file.endswith(("~", ".swp"))]
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for path in sorted(names, key=lambda path: (path != "Chart.yaml", path)):
                with open(os.path.join(chart, path), "rb") as file:
                    content = file.read()
                archive.addfile(entry(f"{name}/{path}", len(content)), io.BytesIO(content))
    return buffer.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chart", required=True, help="the chart's folder")
    parser.add_argument("--archive", required=True, help="the .tgz to write")
    parser.add_argument("--oci", required=True, help="the OCI archive to write")
    arguments = parser.parse_args()

    with open(os.path.join(arguments.chart, "Chart.yaml"), encoding="utf-8") as file:
        about = yaml.safe_load(file)
    content = packed(arguments.chart, about["name"])
    with open(arguments.archive, "wb") as file:
        file.write(content)

    archive = Archive()
    layer = archive.blob(content, "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    config = archive.blob(about, "application/vnd.cncf.helm.config.v1+json")
    named = archive.manifest(config, [layer])
    named["annotations"] = {"org.opencontainers.image.ref.name": str(about["version"])}
    archive.write(arguments.oci, [named])


if __name__ == "__main__":
    main()
