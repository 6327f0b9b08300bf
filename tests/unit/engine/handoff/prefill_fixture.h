// A PrefillSide between a played loop, a played decode leader and a played transport, on a played
// clock.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/handoff/prefill_side.h"
#include "tests/unit/engine/handoff/fake_engine_host.h"

namespace tessera::testing {

class RecordingPort final : public DecodePort {
 public:
  LinkId open(const std::string& address) override {
    opened.push_back(address);
    return opened.size();
  }
  void send(LinkId link, PrefillMessage message) override {
    sent[link].push_back(std::move(message));
  }
  void close(LinkId link) override { closed.push_back(link); }

  std::vector<std::string> opened;
  std::map<LinkId, std::vector<PrefillMessage>> sent;
  std::vector<LinkId> closed;
};

class RecordingSender final : public KvSender {
 public:
  Status register_memory(void* /*base*/, int64_t /*num_bytes*/) override { return Status::ok(); }
  PeerId connect(const std::vector<LandingRegion>& /*regions*/) override { return ++num_peers; }
  void disconnect(PeerId peer) override { disconnected.push_back(peer); }
  void send(PeerId /*peer*/, std::vector<Parcel> parcels) override {
    sent.insert(sent.end(), parcels.begin(), parcels.end());
  }
  void abort(PeerId /*peer*/, const HandoffKey& key) override { aborted.push_back(key); }
  std::vector<LaneStatistics> statistics(PeerId /*peer*/) const override { return {}; }

  PeerId num_peers = 0;
  std::vector<PeerId> disconnected;
  std::vector<Parcel> sent;
  std::vector<HandoffKey> aborted;
};

class TinyBlockSource final : public BlockSource {
 public:
  const void* image_address(int32_t block_id, int32_t image) const override {
    return bytes_.data() + block_id * 16 + image * 8;
  }
  int64_t image_bytes(int32_t /*image*/) const override { return 8; }
  int32_t num_images() const override { return image_count; }
  std::vector<double> probes(std::span<const int32_t> block_ids,
                             int64_t begin,
                             int64_t end) const override {
    asked = {static_cast<int64_t>(block_ids.size()), begin, end};
    return answer;
  }

  int32_t image_count = 1;             ///< at most 2
  std::vector<double> answer;          ///< to probes()
  mutable std::vector<int64_t> asked;  ///< blocks, begin and end of the last probes()

 private:
  std::vector<char> bytes_ = std::vector<char>(4096);
};

class PrefillFixture {
 public:
  explicit PrefillFixture(int32_t num_early = 2,
                          DecodeLayout decode_layout = {},
                          int64_t early_tokens = 0)
      : layout(decode_layout),
        host(64),
        side(make_options(num_early, early_tokens, layout.window),
             {.mailbox = mailbox,
              .port = port,
              .sender = sender,
              .source = source,
              .metrics = metrics}) {
    source.image_count = layout.num_images;
    host.side = &side;
    side.bind(host, [] {});
  }
  ~PrefillFixture() {
    host.end_all();
    side.shut_down(unavailable("the test ends"));
  }
  PrefillFixture(const PrefillFixture&) = delete;
  PrefillFixture& operator=(const PrefillFixture&) = delete;

  struct Request {
    HandoffKey key;
    std::shared_ptr<CountingSink> sink;
  };
  Request add(uint64_t id,
              int64_t num_tokens = 130,
              std::vector<std::string> candidates = {"a"},
              int64_t max_tokens = 9,
              uint32_t attempt = 1,
              int32_t num_choices = 1) {
    Request request{make_key(id, attempt), std::make_shared<CountingSink>()};
    GenerationRequest generation;
    generation.id = request.key.request;
    generation.prompt_ids = make_prompt(num_tokens);
    generation.num_choices = num_choices;
    generation.sampling.max_tokens = max_tokens;
    auto group = make_sequence_group(std::move(generation), request.sink);
    group->attempt = attempt;
    group->decode_candidates = std::move(candidates);
    side.on_adopted(host.add(std::move(group)));
    turn();
    return request;
  }
  void turn(std::chrono::milliseconds later = std::chrono::milliseconds(0)) {
    now += later;
    side.begin_turn(now);
  }
  void hear(LinkId link, DecodeMessage message) {
    mailbox.on_link_message(link, std::move(message));
    turn();
  }
  [[nodiscard]] Welcome welcome() const {
    LandingRegion region;
    region.num_slots = 4;
    region.slot_bytes = 8;
    const auto num_ranks = static_cast<size_t>(layout.num_ranks);
    return {.epoch = 5, .layout = layout, .regions = std::vector<LandingRegion>(num_ranks, region)};
  }
  /// The decode leader's side of connecting link `link`.
  void connect(LinkId link) {
    hear(link, welcome());
    mailbox.on_connected(sender.num_peers);
    turn();
  }
  /// Computes the prompt up to `num_tokens`, whose blocks the sequence gets.
  void compute(const Request& request, int64_t num_tokens) {
    Sequence& sequence = *host.find(request.key)->choices.front();
    while (sequence.table().capacity_tokens() < sequence.num_tokens()) {
      sequence.table().append(host.allocator().try_allocate());
    }
    sequence.set_num_computed(num_tokens);
    side.on_computed(sequence, now);
  }
  /// The prompt's end: one token a choice; those of `ended` finish with it.
  void draw_first_tokens(const Request& request, const std::vector<bool>& ended = {false}) {
    SequenceGroup& group = *host.find(request.key);
    compute(request, group.choices.front()->num_tokens());
    std::vector<TokenEvent> events(ended.size());
    for (size_t i = 0; i < ended.size(); ++i) {
      events[i].choice = static_cast<int32_t>(i);
      events[i].token_id = 3;
      if (ended[i]) {
        events[i].finish_reason = FinishReason::kStop;
      }
    }
    ASSERT_TRUE(side.on_first_tokens(group, events, now));
    for (const auto& choice : group.choices) {
      choice->release_blocks();  // as the loop does
    }
  }
  void ack_all(const Request& request) {
    mailbox.on_acked(
        sender.num_peers, request.key, static_cast<int64_t>(sender.sent.size()) - num_acked_);
    num_acked_ = static_cast<int64_t>(sender.sent.size());
    turn();
  }
  template <typename Message>
  [[nodiscard]] std::vector<Message> sent(LinkId link) const {
    std::vector<Message> found;
    const auto of_link = port.sent.find(link);
    if (of_link != port.sent.end()) {
      for (const PrefillMessage& message : of_link->second) {
        if (const auto* wanted = std::get_if<Message>(&message)) {
          found.push_back(*wanted);
        }
      }
    }
    return found;
  }
  /// Every block is back.
  [[nodiscard]] bool is_clean() {
    return host.allocator().num_used() == 0 && host.num_groups() == 0 && !side.has_work();
  }

  static PrefillSideOptions make_options(int32_t num_early,
                                         int64_t early_tokens,
                                         const kernels::LatentWindow& window) {
    PrefillSideOptions options;
    options.epoch = 42;
    options.worker_name = "p0";
    options.fingerprint = "layout";
    options.max_model_len = 512;
    options.window = window;
    options.num_early_reservations = num_early;
    options.early_reservation_tokens = early_tokens;
    return options;
  }

  const DecodeLayout layout;  ///< of every leader
  PrefillSide::TimePoint now = PrefillSide::TimePoint(std::chrono::hours(1));
  FakeEngineHost host;
  PrefillMailbox mailbox;
  RecordingPort port;
  RecordingSender sender;
  TinyBlockSource source;
  HandoffMetrics metrics;
  PrefillSide side;

 private:
  int64_t num_acked_ = 0;
};

}  // namespace tessera::testing
