"""Every failure between roles, made to happen in real processes on loopback.

After each one: the client got the right answer (greedy, float32, equal to one combined engine's) or
one error, in bounded time; no worker holds a block, a slot or a reservation; the next request is
served.
"""
import argparse
import asyncio
import json
import random
import signal
import socket
import threading
import time
import unittest

from cluster import Cluster, complete
from completions import ServerError, stream_text
from tessera_server import TesseraServer

OPTIONS = None
EXACT = ["--dtype", "float32", "--attention-sharding", "replicated", "--handoff-lease", "2"]
LONG = {"max_tokens": 300, "temperature": 0, "ignore_eos": True}


def prompt(length, seed=1):
    rng = random.Random(seed)
    return [rng.randrange(3, 8000) for _ in range(length)]


SHORT_REQUEST = {**LONG, "prompt": prompt(40), "max_tokens": 8}
STREAM_REQUEST = {**LONG, "prompt": prompt(200)}
HEAVY_REQUEST = {**LONG, "prompt": prompt(3000), "max_tokens": 4}  # seconds of prefill


class Background:
    """One streaming request on a thread of its own."""

    def __init__(self, url, body):
        self.text = None
        self.error = None
        self.started = time.monotonic()
        self.seconds = None
        self.thread = threading.Thread(target=self._run, args=(url, body))
        self.thread.start()

    def _run(self, url, body):
        try:
            texts, _ = asyncio.run(stream_text(url, body))
            self.text = texts.get(0, "")
        except (ServerError, OSError, RuntimeError, TimeoutError) as error:
            self.error = error
        self.seconds = time.monotonic() - self.started

    def join(self, test, timeout=60.0):
        self.thread.join(timeout)
        test.assertFalse(self.thread.is_alive(), "the request did not end in bounded time")
        return self.text


class FailureTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with TesseraServer(OPTIONS.server, OPTIONS.model,
                           arguments=["--combined", "--dtype", "float32"]) as server:
            cls.answers = {json.dumps(body): complete(server.url, body)["choices"][0]["text"]
                           for body in (SHORT_REQUEST, STREAM_REQUEST, HEAVY_REQUEST)}

    def cluster(self, **more):
        decode = [*EXACT, "--tensor-parallel-size", "2", *more.pop("decode", [])]
        prefill = [*EXACT, "--max-num-batched-tokens", "128", *more.pop("prefill", [])]
        return Cluster(OPTIONS.server, OPTIONS.model, prefill=prefill, decode=decode, **more)

    def expected(self, body):
        return self.answers[json.dumps(body)]

    def assert_serves(self, cluster):
        for role in cluster.roles:
            role.wait_until_ready()
        deadline = time.monotonic() + 20
        while True:
            try:
                answer = cluster.complete(SHORT_REQUEST)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        self.assertEqual(answer["choices"][0]["text"], self.expected(SHORT_REQUEST))
        self.assertEqual(cluster.wait_for_rest(), {})

    def wait_for(self, claim, seconds=20.0):
        deadline = time.monotonic() + seconds
        while not claim():
            self.assertLess(time.monotonic(), deadline, "it did not happen in time")
            time.sleep(0.02)

    def wait_until_decoding(self, cluster, index=0):
        worker = cluster.decodes[index]
        before = worker.metric("tessera_generation_tokens_total")
        self.wait_for(lambda: worker.metric("tessera_generation_tokens_total") > before + 5)

    def wait_until_prefilling(self, cluster):
        self.wait_for(lambda: any(worker.metric("tessera_requests_running") > 0
                                  for worker in cluster.prefills))

    def busy_index(self, workers):
        found = [index for index, worker in enumerate(workers)
                 if worker.metric("tessera_requests_running") > 0]
        return found[0]

    def test_killed_router_leaves_nothing_behind(self):
        with self.cluster() as cluster:
            request = Background(cluster.router.url, STREAM_REQUEST)
            self.wait_until_decoding(cluster)
            cluster.router.kill()
            self.assertIsNone(request.join(self))
            self.assertEqual(cluster.wait_for_rest(), {})
            cluster.router.start()
            self.assert_serves(cluster)

    def test_killed_prefill_worker_is_replayed_elsewhere(self):
        with self.cluster(num_prefill=2) as cluster:
            request = Background(cluster.router.url, HEAVY_REQUEST)
            self.wait_until_prefilling(cluster)
            index = self.busy_index(cluster.prefills)
            cluster.prefills[index].kill()
            self.assertEqual(request.join(self), self.expected(HEAVY_REQUEST))
            cluster.prefills[index].start()
            self.assert_serves(cluster)

    def test_killed_decode_group_is_replayed_elsewhere(self):
        with self.cluster(num_decode=2) as cluster:
            request = Background(cluster.router.url, STREAM_REQUEST)
            self.wait_for(lambda: any(worker.metric("tessera_generation_tokens_total") > 5
                                      for worker in cluster.decodes))
            index = self.busy_index(cluster.decodes)
            cluster.decodes[index].kill()
            self.assertEqual(request.join(self), self.expected(STREAM_REQUEST))
            cluster.decodes[index].start()
            self.assert_serves(cluster)

    def test_restarted_decode_group_serves_under_a_new_epoch(self):
        with self.cluster() as cluster:
            self.assert_serves(cluster)
            request = Background(cluster.router.url, STREAM_REQUEST)
            self.wait_until_decoding(cluster)
            cluster.decodes[0].kill()
            cluster.decodes[0].start()
            self.assertEqual(request.join(self), self.expected(STREAM_REQUEST))
            self.assert_serves(cluster)

    def test_restarted_prefill_worker_serves_under_a_new_epoch(self):
        with self.cluster() as cluster:
            self.assert_serves(cluster)
            request = Background(cluster.router.url, HEAVY_REQUEST)
            self.wait_until_prefilling(cluster)
            cluster.prefills[0].kill()
            cluster.prefills[0].start()
            self.assertEqual(request.join(self), self.expected(HEAVY_REQUEST))
            self.assert_serves(cluster)

    def stop_for_longer_than_a_lease(self, cluster, worker):
        worker.signal(signal.SIGSTOP)
        others = [other for other in cluster.workers if other is not worker]
        before = [other.metric("tessera_handoff_leases_expired_total") for other in others]
        try:
            self.wait_for(lambda: any(
                other.metric("tessera_handoff_leases_expired_total") > count
                for other, count in zip(others, before)))
        finally:
            worker.signal(signal.SIGCONT)

    def test_prefill_worker_that_sleeps_through_its_lease(self):
        with self.cluster(num_prefill=2) as cluster:
            request = Background(cluster.router.url, HEAVY_REQUEST)
            self.wait_until_prefilling(cluster)
            index = self.busy_index(cluster.prefills)
            self.stop_for_longer_than_a_lease(cluster, cluster.prefills[index])
            self.assertEqual(request.join(self), self.expected(HEAVY_REQUEST))
            self.assert_serves(cluster)

    def test_decode_group_that_sleeps_through_its_lease(self):
        with self.cluster(num_decode=2) as cluster:
            request = Background(cluster.router.url, HEAVY_REQUEST)
            self.wait_for(lambda: any(worker.metric("tessera_handoff_reservations") > 0
                                      for worker in cluster.decodes))
            index = [worker.metric("tessera_handoff_reservations") > 0
                     for worker in cluster.decodes].index(True)
            self.stop_for_longer_than_a_lease(cluster, cluster.decodes[index])
            self.assertEqual(request.join(self), self.expected(HEAVY_REQUEST))
            self.assert_serves(cluster)

    def test_lost_messages_are_sent_again(self):
        with self.cluster(prefill=["--handoff-faults", "drop_ready=2"],
                          decode=["--handoff-faults", "drop_ack=3"]) as cluster:
            request = Background(cluster.router.url, HEAVY_REQUEST)
            self.assertEqual(request.join(self), self.expected(HEAVY_REQUEST))
            self.assert_serves(cluster)

    def test_flipped_bit_is_found_and_sent_again(self):
        with self.cluster(decode=["--handoff-faults", "flip=2"]) as cluster:
            request = Background(cluster.router.url, HEAVY_REQUEST)
            self.assertEqual(request.join(self), self.expected(HEAVY_REQUEST))
            refused = cluster.decodes[0].metric("tessera_handoff_refused_parcels_total")
            self.assertGreaterEqual(refused, 1)
            self.assert_serves(cluster)

    def test_full_decode_group_makes_requests_wait_not_fail(self):
        # 66 blocks: one sequence of 4,096 tokens, or a few of those below at once.
        with self.cluster(decode=["--num-blocks", "66", "--max-num-seqs", "4"]) as cluster:
            requests = [Background(cluster.router.url, {**STREAM_REQUEST, "prompt": prompt(1200, n),
                                                        "max_tokens": 60}) for n in range(8)]
            for request in requests:
                self.assertIsNotNone(request.join(self), request.error)
            self.assertGreater(cluster.decodes[0].metric("tessera_handoff_busy_given_total"), 0)
            self.assert_serves(cluster)

    def test_client_that_leaves_at_any_time_leaves_nothing_behind(self):
        with self.cluster() as cluster:
            host, port = cluster.router.url.removeprefix("http://").split(":")
            for index in range(30):
                body = json.dumps({**HEAVY_REQUEST, "prompt": prompt(1500, index),
                                   "max_tokens": 200, "stream": True})
                with socket.create_connection((host, int(port))) as connection:
                    connection.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n"
                                        "Content-Type: application/json\r\n"
                                        f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
                    time.sleep(index * 0.04)  # from before the reservation to within the decode
            self.assertEqual(cluster.wait_for_rest(), {})
            self.assert_serves(cluster)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[__file__, *rest], verbosity=2)
