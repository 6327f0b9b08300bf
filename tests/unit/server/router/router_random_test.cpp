// Random schedules of everything that workers, clients and time can do. Whatever happens, each
// request ends once, its tokens are right, and no call is left behind.
#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "server/router/router_loop.h"
#include "tests/unit/server/router/router_fakes.h"

namespace tessera::router {
namespace {

/// The token at `index` of `choice`: a function of these alone, as sampling with a seed is.
int32_t token_of(uint64_t seed, int32_t choice, int64_t index) {
  return static_cast<int32_t>(
      (seed % 97 + static_cast<uint64_t>(choice) * 31 + static_cast<uint64_t>(index) * 7) % 1000);
}

struct Client {
  RequestId id;
  uint64_t seed = 0;
  int64_t num_tokens = 0;  // of each choice
  std::shared_ptr<ClientSink> sink;
  bool is_cancelled = false;
};

class RandomScheduleTest : public RouterLoopTest {
 protected:
  int pick(int count) { return std::uniform_int_distribution<int>(0, count - 1)(random); }

  void run_schedule(uint32_t seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    random.seed(seed);
    connector.workers.clear();
    clients.clear();
    calls.clear();
    options.local_prefill_max_tokens = pick(3) == 0 ? 100 : 0;
    for (const char* address : {"d0", "d1"}) {
      worker(address).edit_info().max_local_prefill_tokens = 5;
    }
    start(2, 2);
    for (int i = 0; i < 120; ++i) {
      step();
    }
    settle();
    for (const Client& client_state : clients) {
      check(client_state);
    }
    check_calls();
    expect_all_over();
  }

  void step() {
    switch (pick(12)) {
      case 0:
        submit_one();
        return;
      case 1:
        cancel_one();
        return;
      case 2:
        advance(milliseconds(pick(300)));
        return;
      case 3:
        if (pick(4) == 0) {
          lose(std::string(pick(2) == 0 ? "p" : "d") + std::to_string(pick(2)));
        }
        return;
      default:
        gather();
        if (!calls.empty()) {
          act(*calls[static_cast<size_t>(pick(static_cast<int>(calls.size())))], true);
        }
    }
  }

  void submit_one() {
    GenerationRequest request =
        make_request(std::vector<int32_t>(static_cast<size_t>(1 + pick(8)), 5), 1 + pick(3));
    request.sampling.seed = static_cast<uint64_t>(pick(1000));
    const int64_t num_tokens = 1 + pick(6);
    request.sampling.max_tokens = num_tokens;
    if (pick(8) == 0) {
      request.deadline = Deadline(now + milliseconds(pick(1000)));
    }
    Client state{request.id, *request.sampling.seed, num_tokens, nullptr, false};
    state.sink = std::make_shared<ClientSink>(request.num_choices);
    ASSERT_TRUE(submit(std::move(request), state.sink).is_ok());
    clients.push_back(std::move(state));
  }

  void cancel_one() {
    if (!clients.empty() && pick(2) == 0) {
      Client& state = clients[static_cast<size_t>(pick(static_cast<int>(clients.size())))];
      state.is_cancelled = true;
      cancel(state.id);
    }
  }

  /// What a call has done so far.
  struct Play {
    std::shared_ptr<FakeCall> call;
    bool is_prefill = false;
    bool is_reserved = false;
    std::vector<int64_t> next;  // index, by choice of the call; -1 when it ended
    GenerationRequest generation;
  };

  /// Takes up calls that the workers got since.
  void gather() {
    for (auto& [address, fake] : connector.workers) {
      for (const auto& call : fake->calls) {
        const bool is_known = std::any_of(
            calls.begin(), calls.end(), [&](const auto& play) { return play->call == call; });
        if (!is_known) {
          calls.push_back(make_play(call));
        }
      }
    }
  }
  std::unique_ptr<Play> make_play(const std::shared_ptr<FakeCall>& call) {
    auto play = std::make_unique<Play>();
    play->call = call;
    play->is_prefill = call->prefill_sink != nullptr;
    play->generation = call->generation;
    const bool is_attach = call->attach.key == call->key;
    if (is_attach) {
      play->generation.sampling = call->attach.sampling;
      play->generation.num_choices = call->attach.num_choices;
      play->generation.first_choice = call->attach.first_choice;
      play->generation.num_replayed_tokens = call->attach.num_replayed_tokens;
    }
    const int64_t first = play->generation.num_replayed_tokens + (is_attach ? 1 : 0);
    play->next.assign(static_cast<size_t>(play->generation.num_choices), first);
    if (is_attach && first >= play->generation.sampling.max_tokens) {
      play->next.assign(play->next.size(), -1);  // ends with prefill's token
    }
    return play;
  }

  /// One random thing that a worker may do; with `may_fail` also what it should not.
  void act(Play& play, bool may_fail) {
    FakeCall& call = *play.call;
    const bool is_late = call.has_ended || call.num_cancels > 0;
    if (is_late && pick(4) != 0) {
      return;  // sometimes a worker has not heard of the cancel yet
    }
    if (call.has_ended) {
      return;
    }
    if (may_fail && pick(12) == 0) {
      fail_somehow(call);
      return;
    }
    if (play.is_prefill && !play.is_reserved && pick(2) == 0) {
      play.is_reserved = true;
      reserve(call,
              call.candidates[static_cast<size_t>(pick(static_cast<int>(call.candidates.size())))]);
      return;
    }
    say_next(play);
  }
  void fail_somehow(FakeCall& call) {
    const StatusCode codes[] = {StatusCode::kUnavailable,
                                StatusCode::kAborted,
                                StatusCode::kNotFound,
                                StatusCode::kResourceExhausted,
                                StatusCode::kInternal};
    fail(call, {codes[pick(5)], "random"});
  }

  void say_next(Play& play) {
    std::vector<size_t> open;
    for (size_t i = 0; i < play.next.size(); ++i) {
      if (play.next[i] >= 0) {
        open.push_back(i);
      }
    }
    if (open.empty()) {
      if (play.is_prefill) {
        hand_over(*play.call);
      }
      return;
    }
    const size_t i = open[static_cast<size_t>(pick(static_cast<int>(open.size())))];
    const auto choice = static_cast<int32_t>(i) + play.generation.first_choice;
    const int64_t index = play.next[i];
    const SamplingParams& sampling = play.generation.sampling;
    const bool is_last = index + 1 >= sampling.max_tokens;
    play.next[i] = is_last || play.is_prefill ? -1 : index + 1;
    const bool needs_decode = play.is_prefill && !is_last && !play.is_reserved;
    if (needs_decode) {
      play.is_reserved = true;
      reserve(*play.call, play.call->candidates.front());
    }
    say(*play.call, token(index, token_of(*sampling.seed, choice, index), is_last, choice));
    const bool has_ended = !play.is_prefill && open.size() == 1 && play.next[i] < 0;
    play.call->has_ended = play.call->has_ended || has_ended;
  }

  /// Lets every worker do its work until every client has its answer.
  void settle() {
    for (int round = 0; round < 3000 && metrics.num_requests_in_flight.value() > 0; ++round) {
      gather();
      for (size_t i = 0; i < calls.size(); ++i) {
        act(*calls[i], false);
      }
      if (round % 5 == 0) {
        advance(milliseconds(100));
      }
    }
    advance(milliseconds(60'000));  // workers that were lost come back
  }

  void check(const Client& state) {
    EXPECT_TRUE(state.sink->is_over() || state.is_cancelled) << "a request without an end";
    for (size_t choice = 0; choice < state.sink->tokens.size(); ++choice) {
      const auto& tokens = state.sink->tokens[choice];
      for (size_t i = 0; i < tokens.size(); ++i) {
        EXPECT_EQ(tokens[i],
                  token_of(state.seed, static_cast<int32_t>(choice), static_cast<int64_t>(i)));
      }
      if (state.sink->is_finished()) {
        EXPECT_EQ(static_cast<int64_t>(tokens.size()), state.num_tokens);
      }
    }
  }
  void check_calls() {
    for (const auto& [address, fake] : connector.workers) {
      for (const auto& call : fake->calls) {
        EXPECT_LE(call->num_cancels, 1);
        // A prefill call whose client has every token ends by itself.
        const bool ends_alone = call->prefill_sink != nullptr;
        EXPECT_TRUE(call->has_ended || call->num_cancels == 1 || ends_alone)
            << "a call that nobody ended on " << address;
      }
    }
  }

  std::mt19937 random;
  std::vector<Client> clients;
  std::vector<std::unique_ptr<Play>> calls;
};

TEST_F(RandomScheduleTest, EveryRequestEndsOnceWithTheRightTokens) {
  const uint32_t first = std::random_device{}();
  RecordProperty("seed", std::to_string(first));
  std::cout << "first seed " << first << '\n';
  for (uint32_t i = 0; i < 1000 && !HasFailure(); ++i) {
    run_schedule(first + i);
  }
}

}  // namespace
}  // namespace tessera::router
