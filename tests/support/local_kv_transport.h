// KvSender and KvReceiver in one process: a parcel lands while it is sent, by memcpy, on the thread
// that sends it. A test can hold parcels back and break peers. Any thread.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/transport/kv_receiver.h"
#include "engine/transport/kv_sender.h"

namespace tessera::testing {

/// One rank's end. `base` is the rank's cache, `block_bytes` one block of it.
class LocalKvReceiver final : public KvReceiver {
 public:
  LocalKvReceiver(Listener& listener, int32_t rank, char* base, int64_t block_bytes)
      : listener_(listener), rank_(rank), base_(base), block_bytes_(block_bytes) {}

  Result<LandingRegion> open() override {
    const std::lock_guard lock(mutex_);
    if (!open_status.is_ok()) {
      return open_status;
    }
    const uint64_t connection = ++last_connection_;
    connections_[connection] = true;
    LandingRegion region;
    region.rank = rank_;
    region.connection = connection;
    region.base_address = reinterpret_cast<uint64_t>(this);  // how LocalKvSender finds it
    region.num_slots = 4;
    region.slot_bytes = block_bytes_;
    return region;
  }
  void close(uint64_t connection) override {
    const std::lock_guard lock(mutex_);
    connections_.erase(connection);
  }
  void expect(uint64_t connection, const HandoffKey& key, std::vector<int32_t> block_ids) override {
    bool is_complete = false;
    {
      const std::lock_guard lock(mutex_);
      Expected& expected = expected_[key];
      expected.connection = connection;
      expected.block_ids = std::move(block_ids);
      for (const int32_t id : expected.block_ids) {
        expected.num_missing += id >= 0 ? 1 : 0;
      }
      is_complete = expected.num_missing == 0;
    }
    if (is_complete) {
      listener_.on_landed(rank_, key);
    }
  }
  void forget(const HandoffKey& key) override {
    const std::lock_guard lock(mutex_);
    expected_.erase(key);
  }
  ReceiverStatistics statistics() const override {
    const std::lock_guard lock(mutex_);
    ReceiverStatistics statistics = statistics_;
    statistics.open_regions = static_cast<int64_t>(connections_.size());
    return statistics;
  }

  /// False when nobody listens on the connection any more.
  bool deliver(uint64_t connection, const Parcel& parcel) {
    bool is_complete = false;
    {
      const std::lock_guard lock(mutex_);
      if (!connections_.contains(connection)) {
        return false;
      }
      const auto found = expected_.find(parcel.key);
      if (found == expected_.end() || found->second.connection != connection) {
        return true;  // acknowledged and dropped
      }
      int32_t& id = found->second.block_ids.at(static_cast<size_t>(parcel.block_index));
      if (id >= 0) {
        std::memcpy(
            base_ + id * block_bytes_, parcel.source, static_cast<size_t>(parcel.num_bytes));
        id = -1;
        --found->second.num_missing;
        ++statistics_.landed_parcels;
        statistics_.landed_bytes += parcel.num_bytes;
        is_complete = found->second.num_missing == 0;
      }
    }
    if (is_complete) {
      listener_.on_landed(rank_, parcel.key);
    }
    return true;
  }
  [[nodiscard]] size_t num_expected() const {
    const std::lock_guard lock(mutex_);
    return expected_.size();
  }

  Status open_status;  ///< what open() fails with; set before use

 private:
  struct Expected {
    uint64_t connection = 0;
    std::vector<int32_t> block_ids;
    int64_t num_missing = 0;
  };
  Listener& listener_;
  const int32_t rank_;
  char* const base_;
  const int64_t block_bytes_;
  mutable std::mutex mutex_;  // guards all below
  uint64_t last_connection_ = 0;
  std::unordered_map<uint64_t, bool> connections_;
  std::unordered_map<HandoffKey, Expected, HandoffKeyHash> expected_;
  ReceiverStatistics statistics_;
};

class LocalKvSender final : public KvSender {
 public:
  explicit LocalKvSender(Listener& listener) : listener_(listener) {}

  Status register_memory(void* /*base*/, int64_t /*num_bytes*/) override { return Status::ok(); }
  PeerId connect(const std::vector<LandingRegion>& regions) override {
    PeerId peer = 0;
    {
      const std::lock_guard lock(mutex_);
      peer = ++last_peer_;
      peers_[peer] = regions;
    }
    if (connects) {
      listener_.on_connected(peer);
    }
    return peer;
  }
  void disconnect(PeerId peer) override {
    if (erase(peer)) {
      listener_.on_disconnected(peer);
    }
  }
  void send(PeerId peer, std::vector<Parcel> parcels) override {
    {
      const std::lock_guard lock(mutex_);
      if (!peers_.contains(peer)) {
        return;
      }
      auto& held = held_[peer];
      held.insert(held.end(), parcels.begin(), parcels.end());
      if (is_holding_) {
        return;
      }
    }
    deliver_held();
  }
  void abort(PeerId peer, const HandoffKey& key) override {
    {
      const std::lock_guard lock(mutex_);
      if (!peers_.contains(peer)) {
        return;
      }
      std::erase_if(held_[peer], [&](const Parcel& parcel) { return parcel.key == key; });
    }
    if (drains) {
      listener_.on_drained(peer, key);
    }
  }
  std::vector<LaneStatistics> statistics(PeerId /*peer*/) const override { return {}; }

  /// Parcels are kept until the end of it.
  void hold(bool is_holding) {
    {
      const std::lock_guard lock(mutex_);
      is_holding_ = is_holding;
    }
    if (!is_holding) {
      deliver_held();
    }
  }
  void fail_peer(PeerId peer) {
    if (erase(peer)) {
      listener_.on_peer_failed(peer, unavailable("the wire was cut"));
    }
  }
  [[nodiscard]] size_t num_held() const {
    const std::lock_guard lock(mutex_);
    size_t num_held = 0;
    for (const auto& [peer, parcels] : held_) {
      num_held += parcels.size();
    }
    return num_held;
  }
  [[nodiscard]] size_t num_peers() const {
    const std::lock_guard lock(mutex_);
    return peers_.size();
  }
  [[nodiscard]] PeerId last_peer() const {
    const std::lock_guard lock(mutex_);
    return last_peer_;
  }

  bool connects = true;  ///< whether connect() ever ends; set before use
  bool drains = true;    ///< whether abort() is answered; set before use

 private:
  bool erase(PeerId peer) {
    const std::lock_guard lock(mutex_);
    held_.erase(peer);
    return peers_.erase(peer) > 0;
  }
  void deliver_held() {
    std::map<PeerId, std::vector<Parcel>> parcels;
    std::map<PeerId, std::vector<LandingRegion>> peers;
    {
      const std::lock_guard lock(mutex_);
      std::swap(parcels, held_);
      peers = peers_;
    }
    for (const auto& [peer, of_peer] : parcels) {
      for (const Parcel& parcel : of_peer) {
        const LandingRegion& region = peers[peer].at(static_cast<size_t>(parcel.rank));
        auto* receiver = reinterpret_cast<LocalKvReceiver*>(region.base_address);
        if (receiver->deliver(region.connection, parcel)) {
          listener_.on_acked(peer, parcel.key, 1);
        }
      }
    }
  }

  Listener& listener_;
  mutable std::mutex mutex_;  // guards all below
  PeerId last_peer_ = 0;
  std::map<PeerId, std::vector<LandingRegion>> peers_;
  std::map<PeerId, std::vector<Parcel>> held_;
  bool is_holding_ = false;
};

}  // namespace tessera::testing
