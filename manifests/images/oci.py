#!/usr/bin/env python3
"""Packs a folder as an OCI image archive of one layer, which containerd (`ctr images import`), kind, podman and others read.

The same folder always gives the same bytes: names are sorted, times are zero, owners are root unless said otherwise.

    oci.py --name sidestep.invalid/webhook:0.1.0 --root FOLDER --output webhook.tar --config '{"Entrypoint": ["/usr/bin/…"]}'
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="the image's name with its tag")
    parser.add_argument("--root", required=True, help="the folder that becomes the image's root")
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
    content = blob(layer(arguments.root), prefix + "layer.v1.tar")
    config = blob(
        {
            "architecture": "amd64",
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
    # The first of these names is containerd's, the second the specification's.
    manifest["annotations"] = {
        "io.containerd.image.name": arguments.name,
        "org.opencontainers.image.ref.name": arguments.name.rsplit(":", 1)[-1],
    }
    index = {"schemaVersion": 2, "mediaType": prefix + "index.v1+json", "manifests": [manifest]}
    # What `docker load` reads.
    docker = [{
        "Config": "blobs/sha256/" + config["digest"].split(":")[1],
        "RepoTags": [arguments.name],
        "Layers": ["blobs/sha256/" + content["digest"].split(":")[1]],
    }]

    part = f"{arguments.output}.{os.getpid()}.part"
    with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("blobs", "blobs/sha256"):
            archive.addfile(entry(name, kind=tarfile.DIRTYPE, mode=0o755))
        files = {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
        files["index.json"] = json.dumps(index, sort_keys=True).encode()
        files["manifest.json"] = json.dumps(docker, sort_keys=True).encode()
        files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
        for name in sorted(files):
            archive.addfile(entry(name, len(files[name])), io.BytesIO(files[name]))
    os.replace(part, arguments.output)


if __name__ == "__main__":
    main()
