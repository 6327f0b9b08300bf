"""Drives a running server through the openai package, as users do. Plain Python, no test runner.

Usage: openai_client_test.py [URL [API_KEY]] [-v]; else from TESSERA_URL and TESSERA_TEST_API_KEY.
The server's model may be anything: texts are never compared with expected ones, only with each
other and with the protocol's rules.
"""
import argparse
import json
import os
import sys
import threading
import time
import traceback
import urllib.request

import openai

MESSAGES = [{"role": "user", "content": "Tell me about the sea."}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "Tell me about the sea."}]}]
LONG = {"ignore_eos": True}
HELD = ["tessera_requests_running", "tessera_requests_waiting", "tessera_cache_blocks_used"]
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def check(is_true, message):
    if not is_true:
        raise AssertionError(message)


def expect_error(kind, code, call):
    """The API error that `call` must raise, with OpenAI's error fields."""
    try:
        call()
    except kind as error:
        check(error.code == code, f"code is {error.code!r}, expected {code!r}")
        check(bool(error.body and error.body["message"]), "the error has no message")
        check(error.response.headers.get("x-request-id"), "the error has no x-request-id")
        return error
    raise AssertionError(f"no {kind.__name__}")


class Context:
    def __init__(self, url, api_key):
        self.url = url
        self.api_key = api_key
        self.client = openai.OpenAI(base_url=url + "/v1", api_key=api_key, max_retries=0,
                                    timeout=60.0)
        self.model = self.client.models.list().data[0].id

    def chat(self, **options):
        options.setdefault("messages", MESSAGES)
        options.setdefault("max_tokens", 12)
        return self.client.chat.completions.create(model=self.model, **options)

    def complete(self, **options):
        options.setdefault("prompt", "Once upon a time")
        options.setdefault("max_tokens", 12)
        return self.client.completions.create(model=self.model, **options)

    def request(self, path, body=None):
        """Headers and text of an answer, without the package's help."""
        request = urllib.request.Request(
            self.url + path, None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60.0) as response:
            return response.headers, response.read().decode()

    def metric(self, name):
        text = self.request("/metrics")[1]
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith((name + "{", name + " ")))

    def wait_until_idle(self):
        """Polls: the server tells nobody when it has freed what a client left behind. Blocks that
        were reserved for a handoff are free a little after the request has left both engines."""
        give_up = time.monotonic() + 10.0
        while time.monotonic() < give_up:
            left = {name: self.metric(name) for name in HELD}
            if not any(left.values()):
                return
            time.sleep(0.02)
        raise AssertionError(f"the server still holds what its clients have left: {left}")


@test
def models(context):
    card = context.client.models.retrieve(context.model)
    check(card.id == context.model, "another model")
    check(card.max_model_len > 0 and card.root, "the card lacks max_model_len or root")
    expect_error(openai.NotFoundError, "model_not_found",
                 lambda: context.client.models.retrieve("no-such-model"))


@test
def chat(context):
    answer = context.chat(temperature=0)
    choice = answer.choices[0]
    check(choice.message.role == "assistant" and choice.message.content, "no content")
    check(choice.finish_reason in ("stop", "length"), choice.finish_reason)
    check(answer.id.startswith("chatcmpl-") and answer.object == "chat.completion", "bad identity")
    usage = answer.usage
    check(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, "usage does not add")
    check(usage.completion_tokens <= 12, "more tokens than asked")
    parts = context.chat(messages=PARTS, temperature=0)
    check(parts.choices[0].message.content == choice.message.content, "parts differ from a string")


@test
def chat_streams_the_same_text(context):
    whole = context.chat(temperature=0)
    text, reasons, ids, usage, roles = "", [], set(), None, []
    chunks = list(context.chat(temperature=0, stream=True,
                               stream_options={"include_usage": True}))
    for chunk in chunks:
        ids.add(chunk.id)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
            reasons += [choice.finish_reason] if choice.finish_reason else []
    check(text == whole.choices[0].message.content, f"{text!r} differs from the whole answer")
    check(roles == ["assistant"], f"roles are {roles}")
    check(reasons == [whole.choices[0].finish_reason], f"reasons are {reasons}")
    check(len(ids) == 1, "the id changes within a stream")
    check(chunks[-1].choices == [] and chunks[-1].usage is not None, "usage is not last")
    check(usage.completion_tokens == whole.usage.completion_tokens, "usage differs")


@test
def completion(context):
    answer = context.complete(temperature=0)
    check(answer.choices[0].text, "no text")
    check(answer.object == "text_completion" and answer.id.startswith("cmpl-"), "bad identity")
    streamed = "".join(choice.text for chunk in context.complete(temperature=0, stream=True)
                       for choice in chunk.choices)
    check(streamed == answer.choices[0].text, "the stream differs from the whole answer")


@test
def completion_of_token_ids(context):
    tokens = json.loads(context.request("/tokenize", {"prompt": "Once upon a time"})[1])["tokens"]
    by_text = context.complete(temperature=0)
    by_ids = context.complete(prompt=tokens, temperature=0)
    check(by_text.choices[0].text == by_ids.choices[0].text, "ids and text differ")
    check(by_ids.usage.prompt_tokens == len(tokens), "prompt_tokens differs from the ids sent")
    text = json.loads(context.request("/detokenize", {"tokens": tokens})[1])["prompt"]
    check("Once upon a time" in text, text)


@test
def several_prompts_and_choices(context):
    answer = context.complete(prompt=["One", "Two"], n=2, temperature=0)
    check([choice.index for choice in answer.choices] == [0, 1, 2, 3], "indices")
    texts = [choice.text for choice in answer.choices]
    check(texts[0] == texts[1] and texts[2] == texts[3], "greedy choices of one prompt differ")


@test
def chat_choices(context):
    answer = context.chat(n=3, temperature=1.0, seed=7)
    check(sorted(choice.index for choice in answer.choices) == [0, 1, 2], "indices")
    ended = set()
    for chunk in context.chat(n=3, stream=True):
        for choice in chunk.choices:
            check(choice.index not in ended, "a choice goes on after its end")
            if choice.finish_reason:
                ended.add(choice.index)
    check(ended == {0, 1, 2}, f"ended: {ended}")


@test
def seed_repeats(context):
    texts = {context.chat(temperature=1.0, seed=11).choices[0].message.content for _ in range(2)}
    check(len(texts) == 1, "one seed, two answers")


@test
def chat_logprobs(context):
    choice = context.chat(temperature=0, logprobs=True, top_logprobs=3).choices[0]
    joined = b"".join(bytes(token.bytes) for token in choice.logprobs.content)
    check(joined.decode() == choice.message.content, "joined tokens differ from the text")
    for token in choice.logprobs.content:
        check(token.logprob <= 0.0, "a log-probability above 0")
        check(len(token.top_logprobs) == 3, "not three alternatives")
        check(token.top_logprobs[0].logprob >= token.logprob - 1e-4, "the best is not best")


@test
def completion_logprobs(context):
    choice = context.complete(temperature=0, logprobs=2).choices[0]
    logprobs = choice.logprobs
    counts = {len(logprobs.tokens), len(logprobs.token_logprobs), len(logprobs.top_logprobs),
              len(logprobs.text_offset)}
    check(len(counts) == 1, f"lists of lengths {counts}")
    check(logprobs.text_offset[0] == 0, "the first offset is not 0")


@test
def stop_string(context):
    whole = context.chat(temperature=0, max_tokens=30, extra_body=LONG).choices[0].message.content
    middle = len(whole) // 2
    stop = whole[middle:middle + 3]
    check(len(stop) == 3, f"the answer {whole!r} is too short for this test")
    choice = context.chat(temperature=0, max_tokens=30, stop=[stop], extra_body=LONG).choices[0]
    check(choice.finish_reason == "stop", choice.finish_reason)
    check(choice.message.content == whole[:whole.index(stop)], "not cut before the stop string")
    check(choice.stop_reason == stop, f"stop_reason is {choice.stop_reason!r}")
    streamed = "".join(choice.delta.content or "" for chunk in
                       context.chat(temperature=0, max_tokens=30, stop=stop, stream=True,
                                    extra_body=LONG) for choice in chunk.choices)
    check(streamed == choice.message.content, "the stream is cut elsewhere")


@test
def length_is_kept(context):
    answer = context.chat(max_tokens=5, extra_body={"ignore_eos": True, "min_tokens": 5})
    check(answer.usage.completion_tokens == 5, "not five tokens")
    check(answer.choices[0].finish_reason == "length", answer.choices[0].finish_reason)


@test
def returns_token_ids(context):
    answer = context.chat(max_tokens=5, extra_body={"return_token_ids": True, **LONG})
    check(len(answer.choices[0].token_ids) == 5, "token_ids")
    check(len(answer.prompt_token_ids) == answer.usage.prompt_tokens, "prompt_token_ids")


@test
def bad_requests(context):
    for code, options in [
            ("invalid_value", {"temperature": 9}),
            ("invalid_type", {"extra_body": {"top_logprobs": "5", "logprobs": True}}),
            ("invalid_value", {"n": 10_000}),
            ("invalid_value", {"max_tokens": 0}),
            ("invalid_value", {"messages": []}),
            ("unsupported_parameter", {"response_format": {"type": "json_object"}}),
            ("unsupported_parameter", {"extra_body": {"kv_transfer_params": {"remote_host": "x"}}}),
            ("context_length_exceeded", {"max_tokens": 100_000_000}),
            ("context_length_exceeded", {"messages": [{"role": "user", "content": "x " * 500_000}]}),
    ]:
        expect_error(openai.BadRequestError, code, lambda: context.chat(**options))
    error = expect_error(openai.BadRequestError, "invalid_value",
                         lambda: context.chat(frequency_penalty=-5))
    check(error.param == "frequency_penalty", f"param is {error.param!r}")


@test
def unknown_fields_are_ignored(context):
    context.chat(user="someone", metadata={"a": "b"}, extra_body={"no_such_field": 1})


@test
def wrong_key(context):
    other = openai.OpenAI(base_url=context.url + "/v1", api_key="sk-wrong", max_retries=0)
    error = expect_error(openai.AuthenticationError, "invalid_api_key", other.models.list)
    check(error.response.headers.get("www-authenticate") == "Bearer", "no WWW-Authenticate")


@test
def wrong_model_and_url(context):
    expect_error(openai.NotFoundError, "model_not_found",
                 lambda: context.client.chat.completions.create(model="no-such-model",
                                                                messages=MESSAGES))
    expect_error(openai.NotFoundError, "unknown_url",
                 lambda: context.client.embeddings.create(model=context.model, input="x"))


@test
def full_queue_answers_429(context):
    """More requests at once than any queue of this test's server holds."""
    found = []

    def ask():
        try:
            context.complete(prompt=["a"] * 16, n=1, max_tokens=64, extra_body=LONG)
        except openai.RateLimitError as error:
            found.append(error)

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(found, "384 prompts at once, and none was refused")
    check(found[0].code == "queue_full", f"code is {found[0].code!r}")
    check(float(found[0].response.headers["retry-after"]) > 0, "no Retry-After")
    context.wait_until_idle()


@test
def leaving_a_stream_frees_the_request(context):
    before = context.metric("tessera_http_client_disconnects_total")
    stream = context.chat(stream=True, max_tokens=2000, extra_body=LONG)
    next(iter(stream))
    stream.close()
    context.wait_until_idle()
    check(context.metric("tessera_http_client_disconnects_total") > before, "not counted")


@test
def raw_stream_ends_with_done(context):
    body = {"model": context.model, "messages": MESSAGES, "max_tokens": 3, "stream": True}
    headers, text = context.request("/v1/chat/completions", body)
    check(headers["content-type"].startswith("text/event-stream"), "content type")
    check(headers["cache-control"] == "no-cache", "cache control")
    events = [event for event in text.split("\n\n") if event]
    check(events[-1] == "data: [DONE]", f"ends with {events[-1]!r}")
    for event in events[:-1]:
        json.loads(event.removeprefix("data: "))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default=os.environ.get("TESSERA_URL"))
    parser.add_argument("api_key", nargs="?", default=os.environ.get("TESSERA_TEST_API_KEY"))
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    if not options.url or not options.api_key:
        parser.error("the server's URL and API key are needed")
    context = Context(options.url.rstrip("/"), options.api_key)
    failed = []
    for function in TESTS:
        begin = time.monotonic()
        try:
            function(context)
        except Exception:  # the next test may still tell something
            failed.append(function.__name__)
            traceback.print_exc()
        if options.verbose or function.__name__ in failed:
            verdict = "FAILED" if function.__name__ in failed else "ok"
            print(f"{verdict:6} {function.__name__} ({time.monotonic() - begin:.2f} s)", flush=True)
    print(f"{len(TESTS) - len(failed)} of {len(TESTS)} passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
