// One decode rank's end of the cache's way: owns the landing regions, checks what lands in them and
// copies it into cache blocks. Nothing but this copy ever writes a reserved block.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/result.h"
#include "engine/request/handoff_key.h"
#include "engine/transport/landing.h"

namespace tessera {

struct ReceiverStatistics {
  int64_t landed_bytes = 0;  ///< of parcels copied in, duplicates not counted
  int64_t landed_parcels = 0;
  int64_t refused_parcels = 0;  ///< checksum or header did not match
  int64_t open_regions = 0;
  int64_t revoked_regions = 0;  ///< made unwritable while the peer was not known to be gone
  std::string lane;
};

class KvReceiver {
 public:
  /// Called on the transport's thread; must not block and must not call back.
  class Listener {
   public:
    Listener() = default;
    virtual ~Listener() = default;
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    /// Every expected block of `key` is in the cache of `rank`. Once per expect().
    virtual void on_landed(int32_t rank, const HandoffKey& key) = 0;
    /// The connection's endpoint failed; close() it.
    virtual void on_connection_failed(int32_t rank, uint64_t connection, const Status& status) = 0;
  };

  KvReceiver() = default;
  virtual ~KvReceiver() = default;
  KvReceiver(const KvReceiver&) = delete;
  KvReceiver& operator=(const KvReceiver&) = delete;

  /// Makes a landing region for one more prefill worker. Errors: RESOURCE_EXHAUSTED (regions are
  /// bounded), UNAVAILABLE. Engine thread; allocates.
  [[nodiscard]] virtual Result<LandingRegion> open() = 0;
  /// Revokes the region: after this call no late write of the peer can reach memory that anyone
  /// uses (README.md says why). Any thread.
  virtual void close(uint64_t connection) = 0;
  /// `block_ids[i]`: the cache block of this rank for block index i of the sequence, -1 where none
  /// is to come (held already, or another rank's). Parcels that arrived earlier wait unacknowledged
  /// and are found by resending. When nothing is to come on_landed() follows at once. Any thread.
  virtual void expect(uint64_t connection,
                      const HandoffKey& key,
                      std::vector<int32_t> block_ids) = 0;
  /// After this call no copy into blocks of `key` runs or starts; parcels of it are acknowledged
  /// and dropped. Waits for one block's copy at most. Any thread.
  virtual void forget(const HandoffKey& key) = 0;
  [[nodiscard]] virtual ReceiverStatistics statistics() const = 0;
};

}  // namespace tessera
