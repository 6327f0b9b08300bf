// The links of a prefill worker to decode leaders: opened on first need, greeted, connected, kept
// warm, given up as a whole when anything of them fails. Knows nothing of requests. Engine thread
// only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/handoff/block_source.h"
#include "engine/handoff/handoff_link.h"
#include "engine/handoff/handoff_metrics.h"
#include "engine/handoff/handoff_options.h"
#include "engine/transport/kv_sender.h"

namespace tessera {

struct DecodeLink {
  using TimePoint = std::chrono::steady_clock::time_point;
  enum class State : uint8_t {
    kGreeting,    ///< Hello is sent
    kConnecting,  ///< Welcome came; the transport connects
    kReady,
  };
  std::string address;
  LinkId id = 0;
  State state = State::kGreeting;
  uint64_t decode_epoch = 0;
  DecodeLayout layout;
  PeerId peer = 0;  ///< from kConnecting on
  TimePoint opened_at;
  TimePoint heard_at;
  TimePoint keep_alive_at;  ///< when the next one is due
  TimePoint progress_at;    ///< of the last acknowledgement, or of the first parcel after a rest
  int64_t num_unacked = 0;  ///< parcels of live handoffs
};

class PrefillLinks final {
 public:
  using TimePoint = DecodeLink::TimePoint;

  class Owner {
   public:
    Owner() = default;
    virtual ~Owner() = default;
    Owner(const Owner&) = delete;
    Owner& operator=(const Owner&) = delete;
    virtual void on_link_ready(DecodeLink& link) = 0;
    /// The link is no longer listed; its transport is being closed, or is gone already.
    virtual void on_link_lost(DecodeLink& link, const Status& status) = 0;
    /// Keys that the other side should know.
    [[nodiscard]] virtual std::vector<HandoffKey> live_keys(const DecodeLink& link) const = 0;
  };

  /// All references outlive the links.
  PrefillLinks(const PrefillSideOptions& options,
               DecodePort& port,
               KvSender& sender,
               const BlockSource& source,
               HandoffMetrics& metrics,
               Owner& owner);

  /// The link to `address`, opened if need be; null while it may not be tried again, or when there
  /// are too many.
  [[nodiscard]] DecodeLink* find_or_open(const std::string& address, TimePoint now);
  [[nodiscard]] DecodeLink* find(LinkId id);
  [[nodiscard]] DecodeLink* find_peer(PeerId peer);

  /// Any message of `link` came.
  void note_heard(DecodeLink& link, TimePoint now) { link.heard_at = now; }
  void on_welcome(DecodeLink& link, const Welcome& welcome, TimePoint now);
  void on_connected(PeerId peer, TimePoint now);
  /// Gives the link up. `is_peer_gone`: the transport has ended it itself.
  void fail(DecodeLink& link, const Status& status, TimePoint now, bool is_peer_gone = false);
  /// KeepAlives that are due, leases that have run out.
  void sweep(TimePoint now);
  [[nodiscard]] TimePoint next_deadline() const;
  /// Ends every link because the worker ends.
  void close_all(const Status& status);

 private:
  struct BackOff {
    HandoffTimes::Duration delay{};
    TimePoint until;
  };
  using LinkMap = std::unordered_map<std::string, std::unique_ptr<DecodeLink>>;

  [[nodiscard]] TimePoint expiry(const DecodeLink& link) const;
  void expire(DecodeLink& link, TimePoint now);
  void remove(DecodeLink& link, const Status& status, bool is_peer_gone);
  void back_off(const std::string& address, TimePoint now);

  const PrefillSideOptions& options_;
  DecodePort& port_;
  KvSender& sender_;
  const BlockSource& source_;
  HandoffMetrics& metrics_;
  Owner& owner_;
  LinkMap links_;                                      // by address
  std::unordered_map<std::string, BackOff> back_off_;  // by address; since its last ready link
};

}  // namespace tessera
