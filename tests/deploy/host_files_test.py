"""compose.yaml, systemd units, Dockerfiles and the bundle: they parse, use flags that exist, keep the
drain arithmetic, give no rights away, and the bundle has what the instructions take from it."""
import configparser
import json
import os
import re
import tempfile
import unittest
from pathlib import Path

import compose_spec
import yaml

import flags
from policy import HOST_NAME
from rendering import DEPLOY, ROOT, find_program, run

COMPOSE = DEPLOY / "compose.yaml"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
TEARDOWN_S = 15


def with_defaults(text):
    """Compose's ${NAME:-default} with the defaults."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text).group(1))


class ComposeTest(unittest.TestCase):
    def setUp(self):
        self.text = with_defaults(COMPOSE.read_text(encoding="utf-8"))
        self.file = yaml.safe_load(self.text)  # also resolves the anchors

    def test_follows_the_specification(self):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(self.file))
        self.file["services"]["router"]["no_such_key"] = 1
        with self.assertRaises(ValueError):
            compose_spec.PyCompose.from_yaml(yaml.safe_dump(self.file))

    def test_docker_takes_it(self):
        docker = find_program("docker")
        if docker is None or run([docker, "compose", "version"]).returncode != 0:
            self.skipTest("not run: no docker compose here")
        result = run([docker, "compose", "-f", str(COMPOSE), "config", "--quiet"])
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_services_keep_the_policy(self):
        for name, service in self.file["services"].items():
            with self.subTest(service=name):
                role, *arguments = service["command"]
                given = dict(one.lstrip("-").split("=", 1) for one in arguments if one.startswith("--"))
                self.assertLessEqual(set(given), set(flags.defaults_of(role)))
                self.assertGreaterEqual(seconds(service["stop_grace_period"]),
                                        int(given["shutdown-timeout"]) + TEARDOWN_S)
                self.assertTrue(service["read_only"])
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertEqual(service["security_opt"], ["no-new-privileges:true"])
                self.assertEqual(service["user"], "10001:10001")
                self.assertNotIn("latest", service["image"])
                self.assertIn("memory", service["deploy"]["resources"]["limits"])
                port = given.get("port", flags.defaults_of(role)["port"])
                self.assertEqual(service["healthcheck"]["test"][-1], port)
                self.assertEqual("ports" in service, name == "router")

    def test_only_loopback_reaches_the_router(self):
        for port in self.file["services"]["router"]["ports"]:
            self.assertTrue(port.startswith("127.0.0.1:"))
        self.assertTrue(self.file["networks"]["roles"]["internal"])

    def test_workers_are_where_the_router_looks(self):
        services = self.file["services"]
        for role in ("prefill", "decode"):
            argument = next(one for one in services["router"]["command"]
                            if one.startswith(f"--{role}-workers="))
            _, name, port = argument.split("=")[1].split(":")
            self.assertEqual(services[name]["command"][0], role)
            self.assertEqual(port, flags.defaults_of(role)["rpc-port"])


class SystemdTest(unittest.TestCase):
    @staticmethod
    def service_of(path):
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str
        parser.read(path)
        return parser["Service"]

    def test_there_is_a_unit_for_each_role(self):
        self.assertEqual([path.name for path in UNITS],
                         ["tessera-decode@.service", "tessera-prefill@.service", "tessera-router.service"])

    def test_units_start_roles_and_give_them_time_to_drain(self):
        for path in UNITS:
            with self.subTest(unit=path.name):
                service = self.service_of(path)
                binary, role, *arguments = service["ExecStart"].split()
                self.assertEqual(binary, "/opt/tessera/bin/tessera")
                for flag in arguments[::2]:
                    self.assertIn(flag.lstrip("-"), flags.defaults_of(role))
                example = DEPLOY / "systemd" / "examples" / Path(arguments[1]).name.replace("%i", "0")
                config = json.loads(example.read_text(encoding="utf-8"))
                self.assertLessEqual(set(config), set(flags.defaults_of(role)))
                self.assertGreaterEqual(int(service["TimeoutStopSec"]),
                                        config["shutdown-timeout"] + TEARDOWN_S)
                self.assertEqual(service["User"], "tessera")
                for key in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "ProtectKernelModules",
                            "RestrictNamespaces", "RestrictSUIDSGID", "LockPersonality"):
                    self.assertEqual(service[key], "yes")
                self.assertEqual(service["ProtectSystem"], "strict")
                self.assertEqual(service["CapabilityBoundingSet"], "")

    def test_systemd_takes_the_units(self):
        analyze = find_program("systemd-analyze")
        if analyze is None:
            self.skipTest("not run: no systemd-analyze here")
        with tempfile.TemporaryDirectory() as folder:
            for path in UNITS:
                # A program and a user that are here, and an instance of the templates.
                text = path.read_text(encoding="utf-8")
                text = re.sub(r"^(User|Group)=tessera", r"\1=root", text, flags=re.M)
                text = text.replace("/opt/tessera/bin/tessera", "/bin/true")
                unit = Path(folder) / path.name.replace("@.", "@0.")
                unit.write_text(text, encoding="utf-8")
                with self.subTest(unit=path.name):
                    verified = run([analyze, "verify", "--man=no", str(unit)])
                    self.assertEqual((verified.returncode, verified.stderr), (0, ""))
                    rated = run([analyze, "security", "--offline=true", "--threshold=30", "--no-pager",
                                 str(unit)])
                    self.assertEqual(rated.returncode, 0, rated.stdout[-200:])


class DockerTest(unittest.TestCase):
    files = sorted((DEPLOY / "docker").glob("Dockerfile.*"))

    def test_linter_has_nothing_to_say(self):
        for path in self.files:
            with self.subTest(file=path.name):
                result = run([find_program("hadolint"), str(path)])
                self.assertEqual(result.returncode, 0, result.stdout)

    def test_images_have_a_user_an_init_and_fixed_bases(self):
        self.assertEqual([path.name for path in self.files], ["Dockerfile.cpu", "Dockerfile.cuda"])
        for path in self.files:
            with self.subTest(file=path.name):
                text = path.read_text(encoding="utf-8")
                last = text[text.rindex("\nFROM "):]
                self.assertIn("\nUSER 10001:10001\n", last)
                self.assertIn('ENTRYPOINT ["/usr/bin/tini", "--", "/opt/tessera/bin/tessera"]', last)
                for base in re.findall(r"^ARG \w+_IMAGE=(\S+)", text, re.M):
                    self.assertRegex(base, r":[^:/]+$")
                    self.assertNotRegex(base, r"latest")
                    self.assertIsNone(HOST_NAME.match(base))
                # Images are named by arguments, so that they can be pinned by digest.
                self.assertEqual(re.findall(r"^FROM (?!\$\{)", text, re.M), [])

    def test_build_context_has_all_that_is_copied(self):
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        kept = {line[1:] for line in ignored if line.startswith("!")}
        for path in self.files:
            for source in re.findall(r"^COPY (?:--chown=\S+ )?(?!--from)(\S+) /", path.read_text(
                    encoding="utf-8"), re.M):
                self.assertTrue(any(source == one or source.startswith(one + "/") for one in kept), source)
        package = (ROOT / "tools" / "package.sh").read_text(encoding="utf-8")
        self.assertLessEqual(set(re.findall(r" (deploy/\S+)", package)), kept)


class BundleTest(unittest.TestCase):
    """tools/package.sh, with this system's UCX and little compression."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        binary = Path(flags.server())
        linked = run(["ldd", str(binary)]).stdout
        ucx = re.search(r"libucp\.so\.0 => (\S+)", linked)
        archive = f"{folder.name}/tessera.tar.zst"
        made = run(["bash", str(ROOT / "tools" / "package.sh"), "--build-dir", str(binary.parents[1]),
                    "--output", archive, "--ucx", str(Path(ucx.group(1)).parent), "--level", "1"])
        if made.returncode != 0:
            raise AssertionError(made.stdout + made.stderr)
        run(["tar", "--extract", "--zstd", "--file", archive, "--directory", folder.name], check=True)
        cls.bundle = Path(folder.name) / "tessera"

    def test_binary_runs_where_it_is_unpacked(self):
        result = run([str(self.bundle / "bin" / "tessera"), "version"], env={})
        self.assertEqual(result.returncode, 0, result.stderr)
        linked = run(["ldd", str(self.bundle / "bin" / "tessera")], env={"PATH": os.environ["PATH"]}).stdout
        self.assertRegex(linked, rf"libucp\.so\.0 => {re.escape(str(self.bundle))}/")

    def test_files_of_hosts_are_in_it(self):
        def tree(folder):
            return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
                    if path.is_file()}
        self.assertEqual(tree(self.bundle / "deploy" / "systemd"), tree(DEPLOY / "systemd"))
        self.assertEqual(tree(self.bundle / "configs").keys(),
                         {Path(path.name) for path in (ROOT / "configs").iterdir() if path.is_file()})
        # What the instructions take from where the bundle lies.
        text = (self.bundle / "deploy" / "README.md").read_text(encoding="utf-8")
        section = text[text.index("## Two hosts"):text.index("## Kubernetes")]
        named = re.findall(r"deploy/systemd/[\w./-]*\w", section)
        self.assertIn("deploy/systemd/tessera.sysusers", named)
        for path in named:
            self.assertTrue((self.bundle / path).exists(), path)


if __name__ == "__main__":
    unittest.main(verbosity=2)
