"""Requests of all lengths while clients leave and workers are killed.

Every request must end with the right answer (that of one combined engine, greedy, float32), or with
one error after the router's replays are used up; at the end every worker is healthy and holds
nothing. Prints what was measured. CI runs a short form, tools/soak.sh the long one.
"""
import argparse
import asyncio
import random
import sys
import time

from cluster import Cluster, complete
from completions import ServerError, stream_text
from tessera_server import TesseraServer

EXACT = ["--dtype", "float32", "--attention-sharding", "replicated", "--kv-cache-memory", "96MiB"]


class Totals:
    def __init__(self):
        self.right = 0
        self.cancelled = 0
        self.errors = []
        self.problems = []
        self.kills = 0
        self.seconds = []


def make_requests(rng, count, vocab_size, max_length):
    requests = []
    for _ in range(count):
        length = int(max_length ** rng.random())  # as many short ones as long ones
        requests.append({"prompt": [rng.randrange(3, vocab_size) for _ in range(length)],
                         "max_tokens": rng.randint(1, 48), "temperature": 0, "ignore_eos": True})
    return requests


async def one_request(url, rng, requests, answers, options, totals):
    index = rng.randrange(len(requests))
    stop_after = rng.randint(1, 10) if rng.random() < options.cancel_share else 0
    started = time.monotonic()
    try:
        texts, is_whole = await stream_text(url, requests[index], stop_after)
    except ServerError as error:
        totals.errors.append(str(error))
        return
    except (OSError, RuntimeError, TimeoutError) as error:
        totals.problems.append(f"{type(error).__name__}: {error}")
        return
    totals.seconds.append(time.monotonic() - started)
    text = texts.get(0, "")
    if not is_whole:
        totals.cancelled += 1
        if not answers[index].startswith(text):
            totals.problems.append(f"request {index}: a wrong beginning")
    elif text == answers[index]:
        totals.right += 1
    else:
        totals.problems.append(f"request {index}, prompt of {len(requests[index]['prompt'])}: "
                               f"{text!r} instead of {answers[index]!r}")


async def client(url, seed, todo, requests, answers, options, totals):
    rng = random.Random(seed)
    while todo and len(totals.problems) < 20:
        todo.pop()
        await one_request(url, rng, requests, answers, options, totals)


async def kill_workers(cluster, rng, options, totals, is_over):
    while True:
        try:
            await asyncio.wait_for(is_over.wait(), options.kill_every)
            return
        except TimeoutError:
            pass
        worker = rng.choice(cluster.workers)
        worker.kill()
        totals.kills += 1
        worker.start()


async def run(cluster, options, requests, answers, totals):
    rng = random.Random(options.seed + 1)
    is_over = asyncio.Event()
    killer = asyncio.create_task(kill_workers(cluster, rng, options, totals, is_over))
    todo = list(range(options.requests))
    if options.seconds:
        asyncio.get_running_loop().call_later(options.seconds, todo.clear)
    await asyncio.gather(*(client(cluster.router.url, options.seed * 1000 + i, todo, requests,
                                  answers, options, totals) for i in range(options.clients)))
    is_over.set()
    await killer


def check_end(cluster, totals):
    for worker in cluster.workers:
        worker.wait_until_ready()
    left = cluster.wait_for_rest(30.0)
    totals.problems += [f"not given back: {name} = {value}" for name, value in left.items()]
    exhausted = cluster.router.metric("tessera_router_requests_failed_total")
    if len(totals.errors) > exhausted:
        totals.problems.append(f"{len(totals.errors)} errors reached clients, the router gave up "
                               f"{exhausted:.0f} requests")
    for role in cluster.roles:
        if role.stop() != 0:
            totals.problems.append(f"{role.role} ended with {role.process.returncode}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="0: until --requests are done")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--kill-every", type=float, default=20.0)
    parser.add_argument("--cancel-share", type=float, default=0.1)
    parser.add_argument("--distinct", type=int, default=40)
    parser.add_argument("--max-length", type=int, default=1500)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--max-error-share", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    requests = make_requests(random.Random(options.seed), options.distinct, options.vocab_size,
                             options.max_length)
    with TesseraServer(options.server, options.model,
                       arguments=["--combined", "--dtype", "float32"]) as server:
        answers = [complete(server.url, request)["choices"][0]["text"] for request in requests]
    totals = Totals()
    started = time.monotonic()
    with Cluster(options.server, options.model, prefill=EXACT,
                 decode=[*EXACT, "--tensor-parallel-size", "2"], num_prefill=2,
                 num_decode=2) as cluster:
        asyncio.run(run(cluster, options, requests, answers, totals))
        elapsed = time.monotonic() - started
        check_end(cluster, totals)
    ended = totals.right + totals.cancelled + len(totals.errors)
    print(f"{ended} requests in {elapsed:.0f} s, {totals.kills} workers killed: {totals.right} right "
          f"answers, {totals.cancelled} left by the client, {len(totals.errors)} errors")
    for error in totals.errors[:5]:
        print(f"  error: {error}")
    totals.seconds.sort()
    if totals.seconds:
        print(f"longest request {totals.seconds[-1]:.1f} s, median "
              f"{totals.seconds[len(totals.seconds) // 2]:.2f} s")
    if not totals.right or not totals.cancelled:
        totals.problems.append("no right answer or no cancellation: nothing was tested")
    if len(totals.errors) > options.max_error_share * ended:
        totals.problems.append(f"{len(totals.errors)} errors are more than the allowed share")
    if totals.problems:
        sys.exit("\n".join(totals.problems[:20]))


if __name__ == "__main__":
    main()
