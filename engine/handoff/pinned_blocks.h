// Blocks of handoffs that are over, kept until the transport has proven that nothing reads them any
// more. Engine thread only.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>

#include "engine/cache/block_table.h"
#include "engine/request/handoff_key.h"
#include "engine/transport/kv_sender.h"

namespace tessera {

class PinnedBlocks final {
 public:
  void pin(PeerId peer, const HandoffKey& key, BlockTable table) {
    num_blocks_ += table.num_blocks();
    tables_[peer].insert_or_assign(key, std::move(table));
  }
  /// The transport has drained `key`.
  void release(PeerId peer, const HandoffKey& key) {
    const auto of_peer = tables_.find(peer);
    if (of_peer == tables_.end()) {
      return;
    }
    const auto table = of_peer->second.find(key);
    if (table == of_peer->second.end()) {
      return;
    }
    num_blocks_ -= table->second.num_blocks();
    of_peer->second.erase(table);
    if (of_peer->second.empty()) {
      tables_.erase(of_peer);
    }
  }
  /// The peer is gone: all of it is drained.
  void release_all(PeerId peer) {
    const auto of_peer = tables_.find(peer);
    if (of_peer == tables_.end()) {
      return;
    }
    for (const auto& [key, table] : of_peer->second) {
      num_blocks_ -= table.num_blocks();
    }
    tables_.erase(of_peer);
  }
  void clear() {
    tables_.clear();
    num_blocks_ = 0;
  }

  [[nodiscard]] bool is_empty() const noexcept { return tables_.empty(); }
  [[nodiscard]] int64_t num_blocks() const noexcept { return num_blocks_; }

 private:
  std::unordered_map<PeerId, std::unordered_map<HandoffKey, BlockTable, HandoffKeyHash>> tables_;
  int64_t num_blocks_ = 0;
};

}  // namespace tessera
