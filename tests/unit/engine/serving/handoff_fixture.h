// A PrefillEngine and a DecodeEngine over FakeStepRunners, joined in this process.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/serving/decode_engine.h"
#include "engine/serving/prefill_engine.h"
#include "tests/support/handoff_wire.h"
#include "tests/unit/engine/serving/engine_fixture.h"

namespace tessera::testing {

class HandoffFixture {
 public:
  struct Setup {
    EngineOptions prefill = small_options();
    EngineOptions decode = small_options();
    HandoffTimes prefill_times;
    HandoffTimes decode_times;
    int64_t max_local_prefill_tokens = 0;
    bool publishes_own_blocks = true;
    int32_t num_images = 1;  ///< of a block at prefill; `decode.ring` may be a window then
  };
  static constexpr const char* kLeader = "decode-0";

  HandoffFixture() : HandoffFixture(Setup()) {}
  explicit HandoffFixture(Setup setup)
      : model{static_cast<int32_t>(setup.prefill.vocab_size),
              setup.prefill.max_model_len,
              setup.prefill.eos_ids},
        prefill_runner(setup.prefill.num_blocks, model.vocab_size),
        decode_runner(setup.decode.num_blocks,
                      model.vocab_size,
                      setup.decode.ring,
                      setup.decode.max_num_seqs),
        source(prefill_runner.block_address(0), FakeStepRunner::block_bytes(), setup.num_images),
        sender(prefill_mailbox),
        port(prefill_mailbox),
        receiver(decode_mailbox, 0, decode_runner.block_address(0), FakeStepRunner::block_bytes()) {
    prefill_runner.before_step = [this](int64_t) { prefill_gate.pass_blocking(); };
    decode_runner.before_step = [this](int64_t) { decode_gate.pass_blocking(); };
    decode_runner.num_images = setup.num_images;
    port.add_leader(kLeader, decode_mailbox);
    WorkerInfo info;
    info.layout_fingerprint = "plain";
    info.epoch = 11;
    PrefillSideOptions prefill_side;
    prefill_side.times = setup.prefill_times;
    prefill_side.window = setup.decode.ring.window;
    prefill = PrefillEngine::create(std::move(setup.prefill),
                                    std::move(prefill_side),
                                    info,
                                    {.runner = prefill_runner,
                                     .source = source,
                                     .sender = sender,
                                     .port = port,
                                     .mailbox = prefill_mailbox})
                  .value();
    DecodeSideOptions decode_side;
    decode_side.times = setup.decode_times;
    decode_side.layout.num_images = setup.num_images;
    decode_side.publishes_own_blocks = setup.publishes_own_blocks;
    info.max_local_prefill_tokens = setup.max_local_prefill_tokens;
    decode = DecodeEngine::create(std::move(setup.decode),
                                  std::move(decode_side),
                                  info,
                                  {.runner = decode_runner,
                                   .receivers = {&receiver},
                                   .mailbox = decode_mailbox,
                                   .check_probes = {}})
                 .value();
  }
  ~HandoffFixture() {
    prefill_gate.open();
    decode_gate.open();
  }
  HandoffFixture(const HandoffFixture&) = delete;
  HandoffFixture& operator=(const HandoffFixture&) = delete;

  struct Running {
    HandoffKey key;
    std::shared_ptr<CollectingSink> client;
    std::shared_ptr<RoutingSink> routing;
    Status status;
  };
  Running submit(const GenerationRequest& generation, uint32_t attempt = 1, bool attaches = true) {
    PrefillRequest request{
        .key = {generation.id, attempt}, .generation = generation, .decode_candidates = {kLeader}};
    Running running;
    running.key = request.key;
    running.client = std::make_shared<CollectingSink>(static_cast<size_t>(generation.num_choices));
    running.routing = std::make_shared<RoutingSink>(
        request, [this](const std::string&) { return decode.get(); }, running.client);
    running.routing->attaches = attaches;
    running.status = prefill->prefill(std::move(request), running.routing);
    return running;
  }
  Running run_blocking(const GenerationRequest& generation, uint32_t attempt = 1) {
    Running running = submit(generation, attempt);
    is_last_run_done = running.client->wait_until_done_blocking();
    return running;
  }
  void cancel(const HandoffKey& key) {
    prefill->cancel(key);
    decode->cancel(key);
  }
  [[nodiscard]] std::vector<int32_t> expected_tokens(const GenerationRequest& request,
                                                     int32_t choice = 0) const {
    return fake_generate(request, choice, model).tokens;
  }
  /// Waits for `condition`; false after ten seconds.
  template <typename Condition>
  [[nodiscard]] static bool wait_for_blocking(Condition condition) {
    const Deadline limit = Deadline::after(std::chrono::seconds(10));
    while (!condition()) {
      if (limit.is_expired()) {
        return false;
      }
      std::this_thread::yield();
    }
    return true;
  }
  /// Nothing is held, reserved, pinned or expected anywhere.
  [[nodiscard]] bool becomes_empty_blocking() {
    return wait_for_blocking([this] {
      return prefill->metrics().num_blocks_used.value() == 0 &&
             decode->metrics().num_blocks_used.value() == 0 && receiver.num_expected() == 0 &&
             sender.num_held() == 0 && decode->handoff_metrics().reservations.value() == 0 &&
             prefill->handoff_metrics().pinned_blocks.value() == 0;
    });
  }

  FakeModelOptions model;
  StepGate prefill_gate;
  StepGate decode_gate;
  FakeStepRunner prefill_runner;
  FakeStepRunner decode_runner;
  PlainBlockSource source;
  PrefillMailbox prefill_mailbox;
  DecodeMailbox decode_mailbox;
  LocalKvSender sender;
  LocalDecodePort port;
  LocalKvReceiver receiver;
  bool is_last_run_done = false;
  std::unique_ptr<DecodeEngine> decode;
  std::unique_ptr<PrefillEngine> prefill;  // last: ends first
};

}  // namespace tessera::testing
