// Decode's side of KVH/1: promises room, has blocks land in it, and commits a request once every
// rank has all of it, prefill has sealed it and a router has attached to it. README.md has its
// states. A reservation belongs to one link and dies with it; a committed request is the engine
// loop's own. Engine thread only, but for begin_drain().
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/handoff/answer_memory.h"
#include "engine/handoff/decode_admission.h"
#include "engine/handoff/decode_mailbox.h"
#include "engine/handoff/handoff_metrics.h"
#include "engine/handoff/handoff_options.h"
#include "engine/handoff/handoff_side.h"
#include "engine/handoff/probe_check.h"

namespace tessera {

class DecodeSide final : public HandoffSide {
 public:
  /// Compares the sums that prefill expects with what landed. Errors: DATA_LOSS.
  using ProbeCheck =
      std::function<Status(const std::vector<double>& expected, const LandedTokens& landed)>;
  /// What the side works with; all outlive it.
  struct Parts {
    DecodeMailbox& mailbox;
    std::vector<KvReceiver*> receivers;  ///< by rank
    HandoffMetrics& metrics;
    ProbeCheck check_probes;  ///< empty: probes are not checked
  };
  DecodeSide(DecodeSideOptions options, Parts parts);
  ~DecodeSide() override;
  DecodeSide(const DecodeSide&) = delete;
  DecodeSide& operator=(const DecodeSide&) = delete;

  void bind(EngineHost& host, std::function<void()> wake) override;
  void begin_turn(TimePoint now) override;
  [[nodiscard]] bool may_start(const SequenceGroup& group) override;
  void on_adopted(SequenceGroup& group) override;
  void on_computed(Sequence& sequence, TimePoint now) override;
  [[nodiscard]] bool on_first_tokens(SequenceGroup& group,
                                     const std::vector<TokenEvent>& events,
                                     TimePoint now) override;
  void on_decoded(SequenceGroup& group, TimePoint now) override;
  void on_group_end(SequenceGroup& group) override;
  [[nodiscard]] TimePoint next_deadline() const override;
  [[nodiscard]] bool has_work() const override;
  void fail_all(const Status& status) override;
  void shut_down(const Status& status) override;

  /// Rejects new reservations from now on. Any thread.
  void begin_drain() noexcept { is_draining_.store(true); }

 private:
  struct Link {
    std::shared_ptr<PrefillLink> door;  // shared with the carrier's call
    bool is_greeted = false;
    std::string worker_name;
    std::vector<uint64_t> connections;  // by rank, once greeted
    TimePoint heard_at;
    TimePoint keep_alive_at;
  };
  /// A request that is not committed yet.
  struct Reservation {
    HandoffKey key;
    LinkId link = 0;
    std::vector<int32_t> prompt_ids;
    RoomNeeded room;
    LandedPrompt prompt;
    std::vector<Block> copies;  // for the partial last blocks of all choices but one
    int64_t num_held_tokens = 0;
    std::vector<bool> has_landed;  // by rank
    std::optional<Seal> seal;
    std::optional<AttachRequest> attach;
    std::shared_ptr<TokenSink> sink;  // with `attach`
    TimePoint granted_at;
    TimePoint sealed_at;

    [[nodiscard]] int64_t num_blocks() const noexcept {
      return prompt.table.num_blocks() + static_cast<int64_t>(prompt.other_images.size());
    }
  };
  struct Committed {
    HandoffKey key;
    SequenceGroup* group = nullptr;  // the loop's
    TimePoint sealed_at;
  };
  enum class Tell : uint8_t { kNobody, kPrefill, kRouter, kBoth };
  using LinkMap = std::unordered_map<LinkId, Link>;
  using ReservationMap = std::map<RequestId, Reservation>;

  void handle(DecodeMailbox::Event& event);
  void on_opened(const DecodeMailbox::LinkOpened& opened);
  void on_link_message(LinkId id, PrefillMessage& message);
  void on_hello(LinkId id, Link& link, const Hello& hello);
  [[nodiscard]] Result<std::vector<LandingRegion>> open_regions(Link& link);
  void on_connection_failed(const DecodeMailbox::ConnectionFailed& failed);
  void drop_link(LinkId id, const Status& status, bool is_closed);

  void on_message(LinkId id, Link& link, Reserve& reserve);
  void on_message(LinkId id, Link& link, Seal& seal);
  void on_message(LinkId id, Link& link, const Abort& abort);
  void on_message(LinkId id, Link& link, const KeepAlive& keep_alive);
  void on_attached(DecodeMailbox::Attached& attached);
  void on_cancelled(const HandoffKey& key);
  void on_landed(const DecodeMailbox::Landed& landed);

  [[nodiscard]] Reservation* find(const HandoffKey& key);
  [[nodiscard]] std::optional<DecodeMessage> stored_answer(LinkId id, const HandoffKey& key);
  void end_lower_attempt(const HandoffKey& key);
  [[nodiscard]] Status check_reserve(const Reserve& reserve, const RoomNeeded& room) const;
  void admit(LinkId id, Link& link, Reserve& reserve, const RoomNeeded& room);
  void expect_blocks(const Link& link, const Reservation& reservation);
  [[nodiscard]] int64_t num_promised_blocks() const;
  [[nodiscard]] int64_t num_reserved_seats() const;
  void try_commit(Reservation& reservation);
  [[nodiscard]] Status check_commit(const Reservation& reservation) const;
  [[nodiscard]] Status check_probes(const Reservation& reservation) const;
  void commit(Reservation& reservation);
  void abort(Reservation& reservation, const Status& status, Tell tell);
  void release(Reservation& reservation);
  void sweep_links();
  void sweep_reservations();
  [[nodiscard]] TimePoint expiry(const Reservation& reservation) const;
  void expire(Reservation& reservation);
  void send(LinkId id, DecodeMessage message);

  const DecodeSideOptions options_;
  Parts parts_;
  HandoffMetrics& metrics_;
  EngineHost* host_ = nullptr;
  std::atomic<bool> is_draining_{false};
  LinkMap links_;
  ReservationMap reservations_;
  std::unordered_map<RequestId, Committed, RequestIdHash> committed_;
  AnswerMemory answers_;
  TimePoint now_;
  std::vector<DecodeMailbox::Event> events_;
};

}  // namespace tessera
