"""Every process of a cluster is stopped by SIGTERM and started again while clients stream: no request
may fail, none may have a wrong, missing or repeated token, and no router may report a lost worker.

Runs the mock engine, whose next token follows from what lies in the cache: an answer that differs
from that of one combined engine shows a block or token that a hand-over lost. Clients do not retry
and know one address: HAProxy with deploy/proxy/haproxy.cfg stands before the routers, and nobody tells
it that one of them is about to be stopped. One `tessera bench` sends at a rate of its own beside them
from the first restart to the last, and counts what failed.
"""
import argparse
import asyncio
import random
import signal
import time
import unittest

from bench_client import BenchClient
from cluster import Cluster, complete
from completions import ServerError, stream_text
from proxy import Proxy
from tessera_server import TesseraServer

OPTIONS = None
SPEED = ["--engine", "mock", "--mock-prefill-tokens-per-s", "50000", "--mock-decode-step-ms", "20"]
WORKER = [*SPEED, "--handoff-lease", "3", "--max-num-seqs", "64"]
LONG_REQUEST = {"prompt": list(range(5, 45)), "max_tokens": 600, "temperature": 0,
                "ignore_eos": True}  # 12 seconds
CLIENTS = 32
DISTINCT = 24
# Beside those clients; a request that hangs has failed.
BENCH = ["--rate", 20, "--duration", 600, "--input-tokens", 100, "--length-range", 0.9,
         "--output-tokens", 20, "--request-timeout", 20]


def make_requests(seed):
    rng = random.Random(seed)
    requests = []
    for index in range(DISTINCT):
        length = int(1500 ** rng.random())
        tokens = rng.randint(1, 30) if index % 4 else rng.randint(100, 160)
        requests.append({"prompt": [rng.randrange(5, 8192) for _ in range(length)],
                         "max_tokens": tokens, "temperature": 0, "ignore_eos": True})
    return requests


class Load:
    """Clients that send one request after the other, until stop()."""

    def __init__(self, url, requests, answers, seed):
        self.url = url
        self.requests = requests
        self.answers = answers
        self.rng = random.Random(seed)
        self.num_done = 0
        self.faults = []
        self.is_over = False
        self.tasks = []

    def start(self):
        self.tasks = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]

    async def stop(self):
        self.is_over = True
        await asyncio.gather(*self.tasks)

    async def _client(self):
        while not self.is_over and len(self.faults) < 10:
            index = self.rng.randrange(len(self.requests))
            try:
                texts, _ = await stream_text(self.url, self.requests[index], timeout=60.0)
            except (ServerError, OSError, RuntimeError, TimeoutError) as error:
                self.faults.append(f"{type(error).__name__}: {error}")
                continue
            self.num_done += 1
            if texts.get(0) != self.answers[index]:
                self.faults.append(f"request {index}: {texts.get(0)!r} instead of "
                                   f"{self.answers[index]!r}")

    async def wait_for(self, count, seconds=30.0):
        """Until so many more requests are done: the load went on."""
        until = self.num_done + count
        deadline = time.monotonic() + seconds
        while self.num_done < until and not self.faults:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} requests were not done within {seconds} s")
            await asyncio.sleep(0.02)


def wait_until_seen(cluster):
    """A worker that is back takes part only when every router has found it."""
    deadline = time.monotonic() + 20
    for router in cluster.routers:
        while True:
            seen = [router.metric("tessera_router_ready_workers", role=role)
                    for role in ("prefill", "decode")]
            if seen == [len(cluster.prefills), len(cluster.decodes)]:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"a router sees {seen} workers")
            time.sleep(0.05)


def wait_for(claim, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.05)


def wait_until_used(router):
    """A router that is back takes part only when the proxy's checks have found it."""
    deadline = time.monotonic() + 20
    while router.metric("tessera_router_requests_total") == 0:
        if time.monotonic() > deadline:
            raise TimeoutError("the proxy sends nothing to a router that is back")
        time.sleep(0.05)


class RollingRestartTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.seed = int(time.time())
        print(f"seed {cls.seed}")
        cls.requests = make_requests(cls.seed)
        with TesseraServer(OPTIONS.server, OPTIONS.model,
                           arguments=["--combined", "--engine", "mock", "--mock-decode-step-ms", "0",
                                      "--mock-prefill-tokens-per-s", "1000000"]) as server:
            cls.answers = [complete(server.url, request)["choices"][0]["text"]
                           for request in cls.requests]

    async def restart(self, cluster, load, role):
        """Stops one process as an orchestrator would, and starts it again."""
        code = await asyncio.to_thread(role.stop)
        self.assertEqual(code, 0, role.read_log()[-2000:])
        await load.wait_for(10)  # the others serve alone
        role.start()
        await asyncio.to_thread(role.wait_until_ready)
        await asyncio.to_thread(wait_until_seen, cluster)
        if role in cluster.routers:
            await asyncio.to_thread(wait_until_used, role)
        await load.wait_for(20)

    async def restart_all(self, cluster, url, roles):
        load = Load(url, self.requests, self.answers, self.seed + 1)
        load.start()
        try:
            await load.wait_for(20)
            for role in roles:
                await self.restart(cluster, load, role)
                self.assertEqual(load.faults, [], f"while the {role.role} was restarted")
        finally:
            await load.stop()
        self.assertEqual(load.faults, [])
        return load.num_done

    def run_under_load(self, cluster, url, roles):
        """Restarts the roles one after the other; the routers' count of replays."""
        wait_until_seen(cluster)
        started = time.monotonic()
        with BenchClient(OPTIONS.server, url, *BENCH) as bench:
            num_done = asyncio.run(self.restart_all(cluster, url, roles))
            bench.interrupt()
            report = bench.report()
            self.assertEqual((report["failed"], report["error_counts"]), (0, {}))
        replays = sum(router.metric("tessera_router_replays_total") for router in cluster.routers)
        print(f"{num_done} requests and {report['completed']} of tessera bench in "
              f"{time.monotonic() - started:.1f} s, none failed, {replays:.0f} replays by the "
              "routers that run now")
        self.assertGreater(report["completed"], 20)
        self.assertEqual(cluster.wait_for_rest(), {})
        num_stopped = sum(role in cluster.workers for role in roles)
        for router in cluster.routers:
            self.assertEqual(self.ends_of_workers(router), (num_stopped, 0))
            self.assertEqual(router.metric("tessera_router_workers_lost_total"), 0)
        return replays

    @staticmethod
    def ends_of_workers(router):
        """How many left and how many were lost, by the log of all its lives."""
        log = router.read_log()
        return log.count(" info worker_left "), log.count(" warning worker_lost ")

    @staticmethod
    def make_cluster(decode=(), **more):
        return Cluster(OPTIONS.server, OPTIONS.model, prefill=WORKER,
                       decode=[*WORKER, "--tensor-parallel-size", "2", *decode],
                       num_prefill=2, num_decode=2, **more)

    @unittest.skipUnless(Proxy.is_here(), "no haproxy here")
    def test_every_role_is_restarted_under_load(self):
        with self.make_cluster(num_routers=2) as cluster:
            with Proxy([router.http_port for router in cluster.routers]) as proxy:
                # Routers twice: the proxy has to find again the one that was away first.
                self.run_under_load(cluster, proxy.url, [*cluster.roles, *cluster.routers])

    def test_a_decode_group_that_may_not_wait_hands_its_requests_back(self):
        with self.make_cluster(decode=["--shutdown-timeout", "0"]) as cluster:
            replays = self.run_under_load(cluster, cluster.router.url, cluster.decodes)
        self.assertGreater(replays, 0, "nothing was running when a group was stopped")

    def test_a_stop_and_a_death_are_told_apart(self):
        async def run_and_kill(cluster, url):
            """A group dies while it drains, with a request of which another has to make the rest."""
            stream = asyncio.create_task(stream_text(url, LONG_REQUEST, timeout=60.0))
            busy = []
            while not busy:
                await asyncio.sleep(0.05)
                busy = [role for role in cluster.decodes
                        if role.metric("tessera_generation_tokens_total") > 0]
            busy[0].signal(signal.SIGTERM)
            await asyncio.to_thread(  # until the router knows
                wait_for, lambda: cluster.router.metric("tessera_router_ready_workers",
                                                        role="decode") == 1)
            busy[0].kill()
            self.assertEqual(busy[0].process.returncode, -signal.SIGKILL)
            texts, _ = await stream
            return busy[0], texts.get(0)

        with self.make_cluster() as cluster:
            router = cluster.router
            wait_until_seen(cluster)
            killed, text = asyncio.run(run_and_kill(cluster, router.url))
            self.assertEqual(text, complete(router.url, LONG_REQUEST)["choices"][0]["text"])
            self.assertEqual(self.ends_of_workers(router), (0, 1))
            killed.start()
            killed.wait_until_ready()
            wait_until_seen(cluster)
            self.assertEqual(killed.stop(), 0)  # idle: it ends before it has told that it drains
            wait_for(lambda: self.ends_of_workers(router) == (1, 1))
            cluster.prefills[0].kill()
            wait_for(lambda: self.ends_of_workers(router) == (1, 2))
            self.assertEqual(router.metric("tessera_router_workers_lost_total"), 2)

    def test_all_roles_in_one_process_end_what_they_have(self):
        async def run(server):
            streams = [asyncio.create_task(stream_text(server.url, request, timeout=60.0))
                       for request in self.requests]
            while await asyncio.to_thread(server.metric,
                                          "tessera_router_requests_total") < len(streams):
                await asyncio.sleep(0.02)
            server.signal(signal.SIGTERM)
            return [texts.get(0) for texts, _ in await asyncio.gather(*streams)]

        with TesseraServer(OPTIONS.server, OPTIONS.model, arguments=SPEED) as server:
            self.assertEqual(asyncio.run(run(server)), self.answers)
            self.assertEqual(server.process.wait(30), 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[__file__, *rest], verbosity=2)
