// Which peers of a sender had no last call yet, for the threads of its callers. Gives every peer
// exactly one last call: on_disconnected() once disconnect() was called, else on_peer_failed().
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/base/log.h"
#include "engine/transport/kv_sender.h"
#include "engine/transport/lane_counters.h"

namespace tessera {

/// Any thread.
class SenderAccounts final {
 public:
  struct Opened {
    PeerId id = 0;
    std::shared_ptr<LaneCounters> counters;  ///< shared with the peer on the transport's thread
  };

  [[nodiscard]] Opened open(size_t num_ranks) {
    const std::lock_guard lock(mutex_);
    Opened opened{++last_id_, std::make_shared<LaneCounters>(num_ranks)};
    accounts_[opened.id].counters = opened.counters;
    return opened;
  }
  /// False when the last call was made already.
  [[nodiscard]] bool begin_leaving(PeerId peer) {
    const std::lock_guard lock(mutex_);
    const auto found = accounts_.find(peer);
    if (found == accounts_.end()) {
      return false;
    }
    found->second.is_leaving = true;
    return true;
  }
  [[nodiscard]] std::vector<LaneStatistics> read(PeerId peer) const {
    const std::lock_guard lock(mutex_);
    const auto found = accounts_.find(peer);
    return found == accounts_.end() ? std::vector<LaneStatistics>()
                                    : found->second.counters->read();
  }
  /// Makes the last call; `status` says why a peer that did not leave was lost.
  void close(PeerId peer, const Status& status, KvSender::Listener& listener) {
    if (erase(peer)) {
      listener.on_disconnected(peer);
      return;
    }
    log_warning("transport_peer_failed", "peer", peer, "status", status.to_string());
    listener.on_peer_failed(peer, status);
  }

 private:
  struct Account {
    std::shared_ptr<LaneCounters> counters;
    bool is_leaving = false;
  };

  /// Whether it was leaving.
  bool erase(PeerId peer) {
    const std::lock_guard lock(mutex_);
    const auto found = accounts_.find(peer);
    const bool is_leaving = found != accounts_.end() && found->second.is_leaving;
    accounts_.erase(peer);
    return is_leaving;
  }

  mutable std::mutex mutex_;  // guards the two below
  std::map<PeerId, Account> accounts_;
  PeerId last_id_ = 0;
};

}  // namespace tessera
