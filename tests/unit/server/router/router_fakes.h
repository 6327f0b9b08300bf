// Workers whose every answer the test gives, a sink that checks the client's side of the contract,
// and a router loop on a clock that the test moves.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "server/router/router_loop.h"

namespace tessera::router {

using std::chrono::milliseconds;

/// One call on a fake worker.
struct FakeCall {
  HandoffKey key;
  GenerationRequest generation;         // prefill, generate
  std::vector<std::string> candidates;  // prefill
  AttachRequest attach;                 // attach
  std::shared_ptr<PrefillSink> prefill_sink;
  std::shared_ptr<TokenSink> sink;  // of any kind
  int num_cancels = 0;
  bool has_ended = false;  // the worker said its last word
};

class FakeWorker final : public PrefillWorker, public DecodeWorker {
 public:
  explicit FakeWorker(std::string at) : address(std::move(at)) {
    info_.model_fingerprint = "model";
    info_.layout_fingerprint = "layout";
    info_.vocab_size = 1000;
    info_.max_model_len = 4096;
    current_load.num_blocks_total = 1000;
    current_load.num_blocks_free = 1000;
    current_load.num_sequences_limit = 64;
  }

  Status prefill(PrefillRequest request, std::shared_ptr<PrefillSink> sink) override {
    if (!refusal.is_ok()) {
      return refusal;
    }
    auto call = std::make_shared<FakeCall>();
    call->key = request.key;
    call->generation = std::move(request.generation);
    call->candidates = std::move(request.decode_candidates);
    call->prefill_sink = sink;
    call->sink = std::move(sink);
    calls.push_back(std::move(call));
    return Status::ok();
  }
  Status attach(AttachRequest request, std::shared_ptr<TokenSink> sink) override {
    if (!refusal.is_ok()) {
      return refusal;
    }
    auto call = std::make_shared<FakeCall>();
    call->key = request.key;
    call->attach = std::move(request);
    call->sink = std::move(sink);
    calls.push_back(std::move(call));
    return Status::ok();
  }
  Status generate(const HandoffKey& key,
                  GenerationRequest request,
                  std::shared_ptr<TokenSink> sink) override {
    if (!refusal.is_ok()) {
      return refusal;
    }
    auto call = std::make_shared<FakeCall>();
    call->key = key;
    call->generation = std::move(request);
    call->sink = std::move(sink);
    calls.push_back(std::move(call));
    return Status::ok();
  }
  void cancel(const HandoffKey& key) override {
    bool is_known = false;
    for (const auto& call : calls) {
      if (call->key == key) {
        ++call->num_cancels;
        is_known = true;
      }
    }
    EXPECT_TRUE(is_known) << "cancel of a call that was never opened";
  }
  WorkerLoad load() const override { return current_load; }
  const WorkerInfo& info() const override { return info_; }

  FakeCall& last() { return *calls.back(); }
  WorkerInfo& edit_info() { return info_; }

  const std::string address;
  WorkerLoad current_load;
  Status refusal;  // of every call
  std::vector<std::shared_ptr<FakeCall>> calls;

 private:
  WorkerInfo info_;
};

class FakeConnector final : public WorkerConnector {
 public:
  std::shared_ptr<WorkerConnection> connect(const std::string& address,
                                            WorkerRole role,
                                            std::shared_ptr<WorkerObserver> observer) override {
    FakeWorker& worker = at(address);
    ++num_connects[address];
    if (is_down[address]) {
      observer->on_gone(unavailable("down"));
    } else {
      observer->on_info(worker.info());
      observer->on_load(worker.current_load);
    }
    observers[address] = std::move(observer);
    return std::make_shared<Connection>(worker, role);
  }

  FakeWorker& at(const std::string& address) {
    auto& worker = workers[address];
    if (worker == nullptr) {
      worker = std::make_unique<FakeWorker>(address);
    }
    return *worker;
  }
  void report_load(const std::string& address) {
    observers[address]->on_load(at(address).current_load);
  }
  void lose(const std::string& address) { observers[address]->on_gone(unavailable("gone")); }
  void leave(const std::string& address) { observers[address]->on_gone(Status::ok()); }

  std::map<std::string, std::unique_ptr<FakeWorker>> workers;
  std::map<std::string, std::shared_ptr<WorkerObserver>> observers;
  std::map<std::string, bool> is_down;
  std::map<std::string, int> num_connects;

 private:
  class Connection final : public WorkerConnection {
   public:
    Connection(FakeWorker& worker, WorkerRole role) : worker_(worker), role_(role) {}
    PrefillWorker* prefill() override { return role_ == WorkerRole::kPrefill ? &worker_ : nullptr; }
    DecodeWorker* decode() override { return role_ == WorkerRole::kDecode ? &worker_ : nullptr; }

   private:
    FakeWorker& worker_;
    WorkerRole role_;
  };
};

/// What the client got.
class ClientSink final : public TokenSink {
 public:
  explicit ClientSink(int32_t num_choices = 1) : tokens(static_cast<size_t>(num_choices)) {}

  void on_token(const TokenEvent& event) override {
    EXPECT_FALSE(is_over()) << "a token after the end";
    ASSERT_LT(static_cast<size_t>(event.choice), tokens.size());
    auto& choice = tokens[static_cast<size_t>(event.choice)];
    EXPECT_EQ(event.index, static_cast<int64_t>(choice.size())) << "tokens out of order";
    choice.push_back(event.token_id);
    num_finished += event.finish_reason.has_value() ? 1 : 0;
  }
  void on_error(const Status& status) override {
    EXPECT_FALSE(is_over()) << "an error after the end";
    error = status;
  }
  bool is_finished() const { return num_finished == static_cast<int32_t>(tokens.size()); }
  bool is_over() const { return is_finished() || error.has_value(); }

  std::vector<std::vector<int32_t>> tokens;
  int32_t num_finished = 0;
  std::optional<Status> error;
};

inline TokenEvent token(int64_t index, int32_t id, bool is_last = false, int32_t choice = 0) {
  TokenEvent event;
  event.choice = choice;
  event.index = index;
  event.token_id = id;
  if (is_last) {
    event.finish_reason = FinishReason::kStop;
  }
  return event;
}

inline GenerationRequest make_request(std::vector<int32_t> prompt = {1, 2, 3},
                                      int32_t num_choices = 1) {
  GenerationRequest request;
  request.id = RequestId::random();
  request.prompt_ids = std::move(prompt);
  request.sampling.max_tokens = 100;
  request.num_choices = num_choices;
  return request;
}

inline RouterOptions fake_options() {
  RouterOptions options;
  options.model_fingerprint = "model";
  options.vocab_size = 1000;
  options.max_model_len = 4096;
  return options;
}

/// A loop with workers p0, p1 … and d0, d1 …, all ready.
class RouterLoopTest : public ::testing::Test {
 protected:
  explicit RouterLoopTest(RouterOptions given = fake_options()) : options(std::move(given)) {}

  void start(int num_prefill, int num_decode) {
    inbox = std::make_shared<RouterInbox>(options);
    loop =
        std::make_unique<RouterLoop>(RouterLoop::Parts{options, connector, inbox, metrics, board});
    list(WorkerRole::kPrefill, "p", num_prefill);
    list(WorkerRole::kDecode, "d", num_decode);
    run();
  }
  void list(WorkerRole role, const std::string& prefix, int count) {
    AddressList addresses{role, {}};
    for (int i = 0; i < count; ++i) {
      addresses.addresses.push_back(prefix + std::to_string(i));
    }
    inbox->post(addresses);
  }
  Status submit(GenerationRequest request, const std::shared_ptr<TokenSink>& sink) {
    auto chain = hash_blocks(request.prompt_ids, {});
    const Status status = inbox->submit({std::move(request), std::move(chain), sink});
    run();
    return status;
  }
  /// A request that the loop has taken.
  RequestId begin(int32_t num_choices = 1) {
    GenerationRequest request = make_request({1, 2, 3}, num_choices);
    const RequestId id = request.id;
    client = std::make_shared<ClientSink>(num_choices);
    EXPECT_TRUE(submit(std::move(request), client).is_ok());
    return id;
  }
  /// Turns until nothing is left to do at this moment.
  void run() {
    RouterInbox::Work work;
    for (int i = 0; i < 4; ++i) {  // workers answer inside calls: their words come a turn later
      inbox->collect(work);
      loop->turn(work, now);
    }
  }
  void advance(milliseconds time) {
    const TimePoint end = now + time;
    while (loop->next_due_at() <= end) {
      now = std::max(now, loop->next_due_at());
      run();
    }
    now = end;
    run();
  }
  void cancel(const RequestId& id) {
    inbox->cancel(id);
    run();
  }
  FakeWorker& worker(const std::string& address) { return connector.at(address); }

  void say(FakeCall& call, const TokenEvent& event) {
    call.sink->on_token(event);
    run();
  }
  void reserve(FakeCall& call, const std::string& address) {
    call.prefill_sink->on_reserved(address);
    run();
  }
  void hand_over(FakeCall& call) {
    call.has_ended = true;
    call.prefill_sink->on_handed_over();
    run();
  }
  void fail(FakeCall& call, const Status& status) {
    call.has_ended = true;
    call.sink->on_error(status);
    run();
  }
  void lose(const std::string& address) {
    connector.lose(address);
    run();
  }
  void leave(const std::string& address) {
    connector.leave(address);
    run();
  }
  void expect_all_over() {
    advance(options.suspicion);  // the pool's own timer
    EXPECT_EQ(loop->num_open_legs(), 0U);
    EXPECT_EQ(metrics.num_requests_in_flight.value(), 0);
    EXPECT_TRUE(inbox->wait_until_empty_blocking(Deadline(TimePoint::min())));
    advance(options.board_period);
    EXPECT_EQ(loop->next_due_at(), TimePoint::max()) << "a timer is left";
  }
  int64_t num_replays() const {
    int64_t sum = 0;
    for (const Counter& counter : metrics.replays) {
      sum += counter.value();
    }
    return sum;
  }

  RouterOptions options;
  RouterMetrics metrics;
  ClusterBoard board;
  FakeConnector connector;
  std::shared_ptr<RouterInbox> inbox;
  std::unique_ptr<RouterLoop> loop;
  std::shared_ptr<ClientSink> client;
  TimePoint now{std::chrono::hours(1)};
};

}  // namespace tessera::router
