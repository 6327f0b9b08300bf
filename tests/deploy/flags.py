"""What the built binary's roles take: flags with their defaults, from `tessera ROLE --help`."""
import functools
import os
import re

from rendering import ROOT, run

ROLES = ("router", "prefill", "decode", "serve")


def server():
    """The binary under test."""
    return os.environ["TEST_BINARY"]


@functools.cache
def defaults_of(role):
    """{flag without dashes: default text, "" where help shows none}."""
    result = run([server(), role, "--help"])
    if result.returncode != 0:
        raise AssertionError(f"tessera {role} --help: {result.stderr}")
    flags = {}
    for line in result.stdout.splitlines():
        match = re.match(r"  --([a-z][a-z0-9-]*)((?:,--[a-z0-9-]+)*)(.*)", line)
        if match:
            default = re.search(r"[A-Z|a-z]=(\S+)", match.group(3).split("  ")[0])
            for flag in [match.group(1), *match.group(2).replace("--", "").split(",")]:
                flags[flag] = default.group(1) if default else ""
    flags.pop("", None)
    return flags


@functools.cache
def grpc_services():
    """Names of the services in proto/, as the health service knows them."""
    names = set()
    for path in (ROOT / "proto").rglob("*.proto"):
        text = path.read_text(encoding="utf-8")
        package = re.search(r"^package ([\w.]+);", text, re.M)
        for service in re.findall(r"^service (\w+)", text, re.M):
            names.add(f"{package.group(1)}.{service}")
    return names
