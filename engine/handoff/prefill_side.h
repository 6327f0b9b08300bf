// Prefill's side of KVH/1: reserves room at a decode leader for each request before it starts,
// pushes finished blocks while later chunks compute, seals, and waits for the commit. README.md has
// its states. A live handoff belongs to a live group of the engine loop; what outlives it are the
// blocks that the transport may still read. Engine thread only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/handoff/block_source.h"
#include "engine/handoff/handoff_metrics.h"
#include "engine/handoff/handoff_options.h"
#include "engine/handoff/handoff_side.h"
#include "engine/handoff/parcel_plan.h"
#include "engine/handoff/pinned_blocks.h"
#include "engine/handoff/prefill_links.h"
#include "engine/handoff/prefill_mailbox.h"
#include "engine/handoff/worker_services.h"

namespace tessera {

class PrefillSide final : public HandoffSide, private PrefillLinks::Owner {
 public:
  /// What the side works with; all outlive it. The groups' sinks are PrefillSinks.
  struct Parts {
    PrefillMailbox& mailbox;
    DecodePort& port;
    KvSender& sender;
    const BlockSource& source;
    HandoffMetrics& metrics;
  };
  PrefillSide(PrefillSideOptions options, const Parts& parts);
  ~PrefillSide() override;
  PrefillSide(const PrefillSide&) = delete;
  PrefillSide& operator=(const PrefillSide&) = delete;

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

 private:
  enum class State : uint8_t {
    kQueued,     ///< no Reserve is out
    kReserving,  ///< a Reserve is out, or waits for its link
    kSending,    ///< granted: blocks travel as they are computed
    kSealed,     ///< prefill has ended; waits for the commit
    kDone,       ///< decode has nothing of it any more, or has all of it
  };
  struct Handoff {
    HandoffKey key;
    SequenceGroup* group = nullptr;  // the loop's; lives as long as the handoff
    std::shared_ptr<PrefillSink> sink;
    State state = State::kQueued;
    bool needs_reservation = true;
    bool is_asked = false;           // the Reserve has been sent
    DecodeLink* link = nullptr;      // from kReserving on
    size_t candidate = 0;            // the next to be asked
    int32_t num_rounds = 0;          // of all candidates
    std::set<std::string> busy;      // addresses that said Busy
    HandoffTimes::Duration pause{};  // the longest that a Busy of this round asked for
    TimePoint retry_at;              // of the next round
    TimePoint asked_at;              // the first Reserve
    TimePoint reached_at;           // the last answer of any leader, or the first try; a round with
                                    // an answer counts as one until its end
    bool was_reached = false;       // in this round
    int64_t num_held_tokens = 0;    // at decode, from kSending on
    int64_t num_prompt_tokens = 0;  // from kSending on, replayed ones included
    ParcelPlan parcels;             // from kSending on
    int64_t next_block = 0;
    int64_t num_sent = 0;  // parcels
    int64_t num_acked = 0;
    int64_t num_sent_bytes = 0;
    BlockTable table;  // from kSealed on; before, the sequence has it
    TimePoint sealed_at;
    StatusCode outcome = StatusCode::kCancelled;
  };
  using HandoffMap = std::map<HandoffKey, std::unique_ptr<Handoff>>;

  // PrefillLinks::Owner
  void on_link_ready(DecodeLink& link) override;
  void on_link_lost(DecodeLink& link, const Status& status) override;
  [[nodiscard]] std::vector<HandoffKey> live_keys(const DecodeLink& link) const override;

  void on_event(const PrefillMailbox::LinkMessage& event);
  void on_event(const PrefillMailbox::LinkClosed& event);
  void on_event(const PrefillMailbox::PeerConnected& event);
  void on_event(const PrefillMailbox::ParcelsAcked& acked);
  void on_event(const PrefillMailbox::KeyDrained& event);
  void on_event(const PrefillMailbox::ParcelFailed& event);
  void on_event(const PrefillMailbox::PeerGone& event);
  void on_message(DecodeLink& link, const Welcome& welcome);
  void on_message(DecodeLink& link, const Grant& grant);
  void on_message(DecodeLink& link, const Busy& busy);
  void on_message(DecodeLink& link, const Reject& reject);
  void on_message(DecodeLink& link, const Committed& committed);
  void on_message(DecodeLink& link, const Aborted& aborted);
  void on_message(DecodeLink& link, const KeepAlive& keep_alive);

  [[nodiscard]] Handoff* find(const HandoffKey& key);
  [[nodiscard]] Handoff* find_on(const DecodeLink& link, const HandoffKey& key);
  void supersede(const HandoffKey& key);
  /// Waiting requests that hold or seek a reservation.
  struct EarlyCount {
    int32_t num_handoffs = 0;
    int64_t num_tokens = 0;    ///< of their prompts
    bool has_refused = false;  ///< one was told Busy: those behind would only wait, ever longer
  };

  void seek_reservations();
  [[nodiscard]] bool is_enough(const EarlyCount& early) const;
  static void add(EarlyCount& early, const Handoff& handoff);
  [[nodiscard]] bool seek_reservation(Handoff& handoff);
  [[nodiscard]] static bool is_early(const Handoff& handoff);
  void try_reserve(Handoff& handoff);
  [[nodiscard]] bool is_wanted_by_older(const Handoff& handoff, const std::string& address) const;
  void ask_next(Handoff& handoff);
  void end_round(Handoff& handoff);
  void send_reserve(Handoff& handoff);
  void send_blocks(Handoff& handoff, const BlockTable& table, int64_t num_blocks, TimePoint now);
  [[nodiscard]] std::vector<double> probes_of(const Handoff& handoff) const;
  void note_transferred(const Handoff& handoff, TimePoint at);
  void complete(Handoff& handoff);
  void leave_decode(Handoff& handoff, const std::string& reason);
  void drain_parcels(Handoff& handoff, BlockTable& table);
  void fail(Handoff& handoff, const Status& status);

  const PrefillSideOptions options_;
  PrefillMailbox& mailbox_;
  DecodePort& port_;
  KvSender& sender_;
  const BlockSource& source_;
  HandoffMetrics& metrics_;
  PrefillLinks links_;
  EngineHost* host_ = nullptr;
  HandoffMap handoffs_;
  std::vector<Handoff*>
      queue_;  // those that wait for a reservation or for their start; oldest first
  PinnedBlocks pinned_;
  TimePoint now_;
  std::minstd_rand jitter_;
  std::vector<PrefillMailbox::Event> events_;
  std::vector<Parcel> parcels_;
};

}  // namespace tessera
