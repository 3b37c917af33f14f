#!/usr/bin/env python3
"""Packs folders as an OCI image archive, which containerd (`ctr images import`), kind, podman, skopeo and others read.

Each architecture has a folder, which becomes an image of one layer. Several of them are one image index. The same folders
always give the same bytes: names are sorted, times are zero, owners are root.

    oci.py --name sidestep.invalid/webhook:0.1.0 --root amd64=FOLDER --root arm64=FOLDER --output webhook.tar \
        --config '{"Entrypoint": ["/usr/bin/…"]}'
"""

import argparse
import hashlib
import io
import json
import os
import tarfile


def entry(name, size=0, kind=tarfile.REGTYPE, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode = size, kind, mode
    return info


def layer(root):
    """The folder as a tar archive without anything that differs from machine to machine."""

    def plain(info):
        info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
        return info

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        names = []
        for folder, folders, files in os.walk(root):
            names += [os.path.relpath(os.path.join(folder, name), root) for name in folders + files]
        for name in sorted(names):
            archive.add(os.path.join(root, name), arcname=name, recursive=False, filter=plain)
    return buffer.getvalue()


def root(text):
    """The value of an argument: an architecture as Go names it, and a folder."""
    architecture, _, folder = text.partition("=")
    if not folder:
        raise argparse.ArgumentTypeError(f"{text!r}: write ARCHITECTURE=FOLDER")
    return architecture, folder


PREFIX = "application/vnd.oci.image."


class Archive:
    """An OCI archive in the making: blobs by their digests, and other files by their names."""

    def __init__(self):
        self.files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(self, content, media):
        """Adds bytes, or a value as JSON; what names it."""
        if not isinstance(content, bytes):
            content = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        part = {"mediaType": media, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}
        self.files[path(part)] = content
        return part

    def manifest(self, config, layers):
        media = PREFIX + "manifest.v1+json"
        return self.blob({"schemaVersion": 2, "mediaType": media, "config": config, "layers": layers}, media)

    def index(self, parts):
        return self.blob(index(parts), PREFIX + "index.v1+json")

    def write(self, output, named):
        """Writes the archive, whose index names these."""
        self.files["index.json"] = json.dumps(index(named), sort_keys=True).encode()
        part = f"{output}.{os.getpid()}.part"
        with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as archive:
            for name in ("blobs", "blobs/sha256"):
                archive.addfile(entry(name, kind=tarfile.DIRTYPE, mode=0o755))
            for name in sorted(self.files):
                archive.addfile(entry(name, len(self.files[name])), io.BytesIO(self.files[name]))
        os.replace(part, output)


def path(part):
    """Where a blob is in the archive."""
    return "blobs/sha256/" + part["digest"].split(":")[1]


def index(parts):
    return {"schemaVersion": 2, "mediaType": PREFIX + "index.v1+json", "manifests": parts}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="the image's name with its tag")
    parser.add_argument("--root", required=True, action="append", type=root, metavar="ARCHITECTURE=FOLDER",
                        help="the folder that becomes the image's root on this architecture; may be repeated")
    parser.add_argument("--output", required=True, help="the archive to write")
    parser.add_argument("--config", default="{}", help="Entrypoint, Env, User, Labels …, as JSON")
    arguments = parser.parse_args()
    archive = Archive()

    def image(architecture, folder):
        """The descriptor of the image's manifest, and what `docker load` reads of it."""
        content = archive.blob(layer(folder), PREFIX + "layer.v1.tar")
        config = archive.blob(
            {
                "architecture": architecture,
                "os": "linux",
                "config": json.loads(arguments.config),
                "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
                "history": [{"created_by": "oci.py"}],
            },
            PREFIX + "config.v1+json",
        )
        manifest = archive.manifest(config, [content])
        manifest["platform"] = {"architecture": architecture, "os": "linux"}
        return manifest, {"Config": path(config), "RepoTags": [arguments.name], "Layers": [path(content)]}

    images = [image(architecture, folder) for architecture, folder in arguments.root]
    manifests = [manifest for manifest, _ in images]
    named = manifests[0] if len(manifests) == 1 else archive.index(manifests)
    # The first of these names is containerd's, the second the specification's.
    named["annotations"] = {
        "io.containerd.image.name": arguments.name,
        "org.opencontainers.image.ref.name": arguments.name.rsplit(":", 1)[-1],
    }
    # For `docker load` where Docker keeps no images in containerd's store: it knows one architecture.
    archive.files["manifest.json"] = json.dumps([images[0][1]], sort_keys=True).encode()
    archive.write(arguments.output, [named])


if __name__ == "__main__":
    main()
