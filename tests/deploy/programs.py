#!/usr/bin/env python3
"""Says which programs of others the tests of this folder run, and what is not run for want of one."""
from rendering import find_program, run

PROGRAMS = (("kubectl", ("version", "--client"), "nothing: it is needed"),
            ("helm", ("version", "--short"), "lint, rendering and schema of the chart"),
            ("hadolint", ("--version",), "nothing: it is needed"),
            ("systemd-analyze", ("--version",), "verify and security of the units"),
            ("docker", ("compose", "version"), "docker compose config"),
            ("nginx", ("-v",), "the proxy of the component tls"),
            ("haproxy", ("-v",), "e2e: restarts of routers behind a proxy, smuggled requests"))


def main():
    for name, arguments, what in PROGRAMS:
        program = find_program(name)
        result = run([program, *arguments]) if program else None
        if result is not None and result.returncode == 0:
            lines = (result.stdout + result.stderr).strip().splitlines()
            print(f"{name}: {', '.join(lines[:2])}"[:100])
        else:
            print(f"{name}: not here; not run: {what}")


if __name__ == "__main__":
    main()
