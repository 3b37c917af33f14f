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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="the image's name with its tag")
    parser.add_argument("--root", required=True, action="append", type=root, metavar="ARCHITECTURE=FOLDER",
                        help="the folder that becomes the image's root on this architecture; may be repeated")
    parser.add_argument("--output", required=True, help="the archive to write")
    parser.add_argument("--config", default="{}", help="Entrypoint, Env, User, Labels …, as JSON")
    arguments = parser.parse_args()

    blobs = {}

    def blob(content, media):
        if not isinstance(content, bytes):
            content = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    prefix = "application/vnd.oci.image."

    def path(part):
        return "blobs/sha256/" + part["digest"].split(":")[1]

    def image(architecture, folder):
        """The descriptor of the image's manifest, and what `docker load` reads of it."""
        content = blob(layer(folder), prefix + "layer.v1.tar")
        config = blob(
            {
                "architecture": architecture,
                "os": "linux",
                "config": json.loads(arguments.config),
                "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
                "history": [{"created_by": "oci.py"}],
            },
            prefix + "config.v1+json",
        )
        manifest = blob(
            {"schemaVersion": 2, "mediaType": prefix + "manifest.v1+json", "config": config, "layers": [content]},
            prefix + "manifest.v1+json",
        )
        manifest["platform"] = {"architecture": architecture, "os": "linux"}
        return manifest, {"Config": path(config), "RepoTags": [arguments.name], "Layers": [path(content)]}

    def index(descriptors):
        return {"schemaVersion": 2, "mediaType": prefix + "index.v1+json", "manifests": descriptors}

    images = [image(architecture, folder) for architecture, folder in arguments.root]
    manifests = [manifest for manifest, _ in images]
    named = manifests[0] if len(manifests) == 1 else blob(index(manifests), prefix + "index.v1+json")
    # The first of these names is containerd's, the second the specification's.
    named["annotations"] = {
        "io.containerd.image.name": arguments.name,
        "org.opencontainers.image.ref.name": arguments.name.rsplit(":", 1)[-1],
    }
    part = f"{arguments.output}.{os.getpid()}.part"
    with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("blobs", "blobs/sha256"):
            archive.addfile(entry(name, kind=tarfile.DIRTYPE, mode=0o755))
        files = {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
        files["index.json"] = json.dumps(index([named]), sort_keys=True).encode()
        # For `docker load` where Docker keeps no images in containerd's store: it knows one architecture.
        files["manifest.json"] = json.dumps([images[0][1]], sort_keys=True).encode()
        files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
        for name in sorted(files):
            archive.addfile(entry(name, len(files[name])), io.BytesIO(files[name]))
    os.replace(part, arguments.output)


if __name__ == "__main__":
    main()
