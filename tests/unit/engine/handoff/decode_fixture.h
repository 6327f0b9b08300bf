// A DecodeSide between a played loop, played prefill workers and played receivers, on a played
// clock.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/handoff/decode_side.h"
#include "tests/unit/engine/handoff/fake_engine_host.h"

namespace tessera::testing {

class RecordingLink final : public PrefillLink {
 public:
  void send(DecodeMessage message) override { sent.push_back(std::move(message)); }
  void close(const Status& status) override { closed = status; }

  template <typename Message>
  [[nodiscard]] std::vector<Message> all() const {
    std::vector<Message> found;
    for (const DecodeMessage& message : sent) {
      if (const auto* wanted = std::get_if<Message>(&message)) {
        found.push_back(*wanted);
      }
    }
    return found;
  }

  std::vector<DecodeMessage> sent;
  std::optional<Status> closed;
};

class RecordingReceiver final : public KvReceiver {
 public:
  Result<LandingRegion> open() override {
    if (!open_status.is_ok()) {
      return open_status;
    }
    LandingRegion region;
    region.connection = ++num_opened;
    region.num_slots = 4;
    region.slot_bytes = 8;
    return region;
  }
  void close(uint64_t connection) override { closed.push_back(connection); }
  void expect(uint64_t /*connection*/,
              const HandoffKey& key,
              std::vector<int32_t> block_ids) override {
    expected[key] = std::move(block_ids);
  }
  void forget(const HandoffKey& key) override { expected.erase(key); }
  ReceiverStatistics statistics() const override { return {}; }

  Status open_status;
  uint64_t num_opened = 0;
  std::vector<uint64_t> closed;
  std::unordered_map<HandoffKey, std::vector<int32_t>, HandoffKeyHash> expected;
};

class DecodeFixture {
 public:
  explicit DecodeFixture(int32_t num_blocks = 16,
                         DecodeLayout layout = {},
                         DecodeSide::ProbeCheck check_probes = {})
      : host(num_blocks, layout.dealing == DecodeLayout::Dealing::kBlocks ? layout.num_ranks : 1),
        receivers(static_cast<size_t>(layout.num_ranks)),
        side(make_options(layout), {mailbox, pointers(), metrics, std::move(check_probes)}) {
    host.side = &side;
    side.bind(host, [] {});
    turn();
  }
  ~DecodeFixture() {
    host.end_all();
    side.shut_down(unavailable("the test ends"));
  }
  DecodeFixture(const DecodeFixture&) = delete;
  DecodeFixture& operator=(const DecodeFixture&) = delete;

  struct Worker {
    std::shared_ptr<RecordingLink> link;
    LinkId id = 0;
  };
  Worker open_link() {
    Worker worker{std::make_shared<RecordingLink>(), 0};
    worker.id = mailbox.on_link_opened(worker.link);
    return worker;
  }
  Worker greet(const char* fingerprint = "layout") {
    Worker worker = open_link();
    Hello hello;
    hello.epoch = 3;
    hello.worker_name = "p0";
    hello.fingerprint = fingerprint;
    hear(worker, std::move(hello));
    return worker;
  }
  void hear(const Worker& worker, PrefillMessage message) {
    ASSERT_TRUE(mailbox.on_link_message(worker.id, std::move(message)).is_ok());
    turn();
  }
  void turn(std::chrono::milliseconds later = std::chrono::milliseconds(0)) {
    now += later;
    side.begin_turn(now);
  }
  static Reserve make_reserve(const HandoffKey& key,
                              int64_t num_tokens = 130,
                              int32_t num_choices = 1) {
    return {.key = key,
            .prompt_ids = make_prompt(num_tokens),
            .num_choices = num_choices,
            .max_total_tokens = num_tokens + 9};
  }
  static Seal make_seal(const HandoffKey& key, const std::vector<bool>& ended = {false}) {
    Seal seal;
    seal.key = key;
    for (size_t i = 0; i < ended.size(); ++i) {
      TokenEvent event;
      event.choice = static_cast<int32_t>(i);
      event.token_id = 5;
      if (ended[i]) {
        event.finish_reason = FinishReason::kStop;
      }
      seal.first_tokens.push_back(event);
    }
    return seal;
  }
  static AttachRequest make_attach(const HandoffKey& key, int32_t num_choices = 1) {
    AttachRequest attach;
    attach.key = key;
    attach.sampling.max_tokens = 9;
    attach.num_choices = num_choices;
    return attach;
  }
  std::shared_ptr<CountingSink> attach(const HandoffKey& key, int32_t num_choices = 1) {
    auto sink = std::make_shared<CountingSink>();
    EXPECT_TRUE(mailbox.attach(make_attach(key, num_choices), sink).is_ok());
    turn();
    return sink;
  }
  /// As if a prompt of so many blocks had run here before.
  void publish_prefix(size_t num_blocks) {
    const auto ids = make_prompt(static_cast<int64_t>(num_blocks) * kBlockTokens);
    BlockHash parent;
    BlockTable table;
    PrefixCache& cache = *host.prefix_cache();
    for (size_t i = 0; i < num_blocks; ++i) {
      table.append(host.allocator().try_allocate());
      const std::span<const int32_t> tokens(ids.data() + kBlockTokens * i, kBlockTokens);
      parent = cache.hash(parent, tokens);
      cache.insert(parent, tokens, table.block(static_cast<int64_t>(i)));
    }
  }
  void land(const HandoffKey& key) {
    for (size_t rank = 0; rank < receivers.size(); ++rank) {
      mailbox.on_landed(static_cast<int32_t>(rank), key);
    }
    turn();
  }
  /// Nothing is promised and nothing is expected.
  [[nodiscard]] bool is_clean() {
    bool is_clean = host.allocator().num_used() == 0 && !side.has_work() &&
                    metrics.reserved_blocks.value() == 0 && metrics.reservations.value() == 0;
    for (const RecordingReceiver& receiver : receivers) {
      is_clean = is_clean && receiver.expected.empty();
    }
    return is_clean;
  }

  static DecodeSideOptions make_options(const DecodeLayout& layout) {
    DecodeSideOptions options;
    options.epoch = 9;
    options.fingerprint = "layout";
    options.layout = layout;
    options.vocab_size = 50;
    options.max_model_len = 1024;
    options.max_num_seqs = 4;
    return options;
  }

  DecodeSide::TimePoint now = DecodeSide::TimePoint(std::chrono::hours(1));
  FakeEngineHost host;
  DecodeMailbox mailbox;
  std::vector<RecordingReceiver> receivers;
  HandoffMetrics metrics;
  DecodeSide side;

 private:
  std::vector<KvReceiver*> pointers() {
    std::vector<KvReceiver*> all;
    for (RecordingReceiver& receiver : receivers) {
      all.push_back(&receiver);
    }
    return all;
  }
};

}  // namespace tessera::testing
