"""The console at / of a router, in a headless Chromium: key, cluster, chat, colours.

Without a browser (Debian: chromium-headless-shell) it says NOT RUN and exits with 77, which ctest
shows as skipped. --screenshot FILE writes a picture of the page with a conversation.
"""
import argparse
import json
import sys
import threading
import unittest
import urllib.error
import urllib.request

from browser import Browser, find_browser
from cluster import Cluster

SKIPPED = 77
KEY = "console-test-key"
MARKUP = '<img src=x onerror="document.title=1"><b>bold</b>'
TEXT_OF_STATES = "[...document.querySelectorAll('.state')].map((e) => e.textContent).join()"
# The contrast of two computed colours as WCAG defines it.
CONTRAST = """((front, back) => {
  const light = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
})(getComputedStyle(document.querySelector('%s')).color,
   getComputedStyle(document.querySelector('%s')).backgroundColor)"""


class ConsoleTest(unittest.TestCase):
    """One page; the tests run in the order of their names."""
    cluster = None
    browser = None
    screenshot = None

    def last_turn(self):
        return self.browser.run("[...document.querySelectorAll('.turn')].pop().lastChild.data")

    def send(self, text):
        self.browser.type("#prompt", text)

    def wait_for_answer(self):
        self.browser.wait_for("!document.getElementById('send').disabled")

    def test_1_asks_for_the_key_and_shows_nothing_before(self):
        browser = self.browser
        browser.open(self.cluster.router.url + "/")
        browser.wait_for("!document.getElementById('key-form').hidden")
        self.assertEqual(browser.run("document.querySelectorAll('.worker').length"), 0)
        browser.type("#key", "wrong")
        browser.wait_for("document.getElementById('status').textContent.includes('not known')")
        browser.type("#key", KEY)
        browser.wait_for("document.querySelectorAll('.worker').length === 2")
        self.assertTrue(browser.run("document.getElementById('key-form').hidden"))
        self.assertEqual(browser.run("Object.values({...sessionStorage}).join()"), KEY)
        self.assertEqual(browser.run("Object.keys({...localStorage}).length"), 0)
        # The two refusals that were wanted; from here on there are no problems at all.
        self.assertEqual({entry.get("source") for entry in browser.problems}, {"network"})
        browser.problems.clear()

    def test_2_shows_the_cluster(self):
        browser = self.browser
        browser.wait_for(TEXT_OF_STATES + " === 'ready,ready'")
        text = browser.run("document.getElementById('roles').innerText")
        for worker in self.cluster.workers:
            self.assertIn(worker.rpc_address, text)
        self.assertIn("tpla", text)
        self.assertIn("of 64", text)  # blocks
        self.assertRegex(text, r"cache a token and rank\s+[0-9.,]+ (KiB|B)\s")
        self.assertEqual(browser.run("document.querySelectorAll('[role=meter]').length"), 3)

    def test_3_chats_and_streams(self):
        browser = self.browser
        browser.run("""window.lengths = []; new MutationObserver(() => window.lengths.push(
            ([...document.querySelectorAll('.turn')].pop()?.lastChild.data.length || 0))).observe(
            document.getElementById('log'), {subtree: true, childList: true, characterData: true})""")
        self.send("What can you do?")
        self.wait_for_answer()
        answer = self.last_turn()
        self.assertGreater(len(answer), 0)
        lengths = browser.run("window.lengths")
        self.assertGreater(len(set(lengths)), 3, "the answer came in pieces")
        self.assertRegex(browser.run("document.getElementById('answer-stats').textContent"),
                         r"^\d+ tokens, the first after .* tokens/s$")
        browser.wait_for("document.getElementById('front').innerText.includes('1\\nfinished')")

    def post(self, path, body):
        request = urllib.request.Request(
            self.cluster.router.url + path, json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": "Bearer " + KEY})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def test_4_markup_stays_text(self):
        self.send(MARKUP)
        self.wait_for_answer()
        self.assertEqual(self.browser.run("document.querySelectorAll('#log img, #log p b b').length"), 0)
        self.assertIn(MARKUP, self.browser.run("document.getElementById('log').textContent"))
        self.assertEqual(self.browser.run("document.title"), "Tessera")

    def test_5_stops_an_answer(self):
        browser = self.browser
        # What it says is up to the model; so that it goes on for long, the page asks for more.
        browser.run("""window.realFetch = window.fetch; window.fetch = (url, options) => {
            if (options && options.body) options.body = JSON.stringify({...JSON.parse(options.body),
              ignore_eos: true, max_tokens: 700});
            return window.realFetch(url, options); }""")
        browser.click("#clear")
        # Pressed by the page itself, as soon as there is something to stop.
        browser.run("""new MutationObserver((_, observer) => {
            const turns = document.querySelectorAll('.turn');
            if (turns.length < 2 || turns[1].lastChild.data.length < 10) return;
            observer.disconnect();
            document.getElementById('stop').click();
        }).observe(document.getElementById('log'), {subtree: true, childList: true, characterData: true})""")
        self.send("Count to a million")
        browser.wait_for("document.querySelectorAll('.turn').length === 2")
        self.wait_for_answer()
        self.assertEqual(browser.run("document.getElementById('answer-stats').textContent"), "stopped")
        browser.run("window.fetch = window.realFetch; 1")
        self.assertEqual(self.cluster.wait_for_rest(), {})

    def test_6_is_readable_in_light_and_dark(self):
        backgrounds = set()
        for scheme in ("light", "dark"):
            self.browser.prefer(scheme)
            backgrounds.add(self.browser.run("getComputedStyle(document.body).backgroundColor"))
            for front, back in (("h2", "section"), ("label", "section"), (".state.ready", "section"),
                                ("dt", "section"), (".turn", "#log"), ("#send", "#send")):
                contrast = self.browser.run(CONTRAST % (front, back))
                self.assertGreaterEqual(contrast, 4.5, f"{scheme}: {front} on {back}")
        self.assertEqual(len(backgrounds), 2)
        self.assertEqual(self.browser.run(
            "[...document.querySelectorAll('input, textarea')].filter((e) => !e.labels.length).length"), 0)

    def test_7_has_no_problem_and_asks_nobody_else(self):
        self.assertEqual(self.browser.problems, [])
        foreign = [url for url in self.browser.requests
                   if not url.startswith((self.cluster.router.url, "data:", "about:"))]
        self.assertEqual(foreign, [])
        self.assertFalse([url for url in self.browser.requests if KEY in url])

    def test_8_takes_its_picture(self):
        if self.screenshot:
            self.browser.prefer("light")
            self.browser.click("#clear")
            body = {"prompt": "Once upon a time", "max_tokens": 600, "ignore_eos": True, "n": 2}
            others = [threading.Thread(target=self.post, args=("/v1/completions", body))
                      for _ in range(3)]
            for other in others:
                other.start()
            self.send("What can you do?")
            self.wait_for_answer()
            self.browser.wait_for(
                r"/running\s+[1-9]/.test([...document.querySelectorAll('.worker')].pop().innerText)")
            self.browser.screenshot(self.screenshot)
            for other in others:
                other.join()

    def test_9_shows_that_a_worker_is_lost(self):
        self.cluster.decodes[0].kill()
        self.browser.wait_for(f"!({TEXT_OF_STATES}).endsWith('ready')")
        self.browser.wait_for("document.getElementById('status').textContent.startsWith('1 of 2')")


class PolicyTest(unittest.TestCase):
    cluster = None

    def test_data_needs_the_key_and_the_page_has_a_policy(self):
        url = self.cluster.router.url
        with urllib.request.urlopen(url + "/", timeout=10) as response:
            self.assertIn("default-src 'none'", response.headers["Content-Security-Policy"])
            self.assertNotIn(KEY, response.read().decode())
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url + "/cluster", timeout=10)
        self.assertEqual(refused.exception.code, 401)
        refused.exception.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--screenshot")
    arguments, rest = parser.parse_known_args()
    if find_browser() is None:
        print("NOT RUN: there is no browser (Debian: chromium-headless-shell)")
        sys.exit(SKIPPED)
    ConsoleTest.screenshot = arguments.screenshot
    small = ["--num-blocks", "64", "--max-model-len", "1024"]
    with Cluster(arguments.server, arguments.model, prefill=small, decode=small,
                 router=["--api-key", KEY]) as cluster, Browser() as browser:
        PolicyTest.cluster = ConsoleTest.cluster = cluster
        ConsoleTest.browser = browser
        done = unittest.main(argv=[sys.argv[0], *rest], verbosity=2, exit=False)
    sys.exit(0 if done.result.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
