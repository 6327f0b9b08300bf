// The prefill worker's end of the cache's way: puts block images into landing slots of decode ranks
// and resends until each is acknowledged. Implementations: UCX; a local one for tests.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/result.h"
#include "engine/request/handoff_key.h"
#include "engine/transport/landing.h"

namespace tessera {

/// One decode group as the sender sees it; never reused.
using PeerId = uint64_t;

/// One block image on its way to one rank. Identified by (key, rank, block_index).
struct Parcel {
  HandoffKey key;
  int32_t rank = 0;         ///< position in the regions given to connect()
  int32_t block_index = 0;  ///< in the sequence
  const void* source =
      nullptr;  ///< in registered memory; stays valid and unchanged until acked or drained
  int64_t num_bytes = 0;
};

/// Bytes and lane of one rank, from the transport's own counters.
struct LaneStatistics {
  int64_t posted_bytes = 0;  ///< of parcels, resends included
  int64_t acked_bytes = 0;
  std::string lane;  ///< "tcp/lo", "posix,cma", "rc_mlx5/mlx5_0:1"
};

class KvSender {
 public:
  /// Called on the transport's thread; must not block and must not call back.
  class Listener {
   public:
    Listener() = default;
    virtual ~Listener() = default;
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    /// Endpoints are up and the self-test has passed. Parcels may be sent.
    virtual void on_connected(PeerId peer) = 0;
    virtual void on_acked(PeerId peer, const HandoffKey& key, int64_t num_parcels) = 0;
    /// Nothing of `key` is queued or in flight any more: its source memory is free to change.
    /// Answers each abort(), once.
    virtual void on_drained(PeerId peer, const HandoffKey& key) = 0;
    /// A parcel was refused too often. The rest of `key` is still the caller's to abort.
    virtual void on_parcel_failed(PeerId peer, const HandoffKey& key, const Status& status) = 0;
    /// The peer is lost: connecting failed, or an endpoint did. Every key of it is drained; no
    /// on_drained() follows. Last call for `peer`; not made after disconnect().
    virtual void on_peer_failed(PeerId peer, const Status& status) = 0;
    /// Answers disconnect(): nothing of the peer's is in flight. Last call for `peer`.
    virtual void on_disconnected(PeerId peer) = 0;
  };

  KvSender() = default;
  virtual ~KvSender() = default;
  KvSender(const KvSender&) = delete;
  KvSender& operator=(const KvSender&) = delete;

  /// The memory that parcels lie in, once, before connect(). Errors: INVALID_ARGUMENT (a kind of
  /// memory that this transport cannot read), UNAVAILABLE.
  [[nodiscard]] virtual Status register_memory(void* base, int64_t num_bytes) = 0;
  /// Starts connecting; ends in on_connected() or on_peer_failed(). Any thread; does not block.
  [[nodiscard]] virtual PeerId connect(const std::vector<LandingRegion>& regions) = 0;
  /// Closes in the background. Any thread; does not block.
  virtual void disconnect(PeerId peer) = 0;
  /// Queues parcels; bounded by the caller, who has the blocks. Any thread; does not block. Ignored
  /// for a peer that is lost.
  virtual void send(PeerId peer, std::vector<Parcel> parcels) = 0;
  /// Forgets what of `key` is not in flight; then on_drained(). Any thread; does not block.
  virtual void abort(PeerId peer, const HandoffKey& key) = 0;
  /// One entry a rank; empty for an unknown peer. Any thread.
  [[nodiscard]] virtual std::vector<LaneStatistics> statistics(PeerId peer) const = 0;
};

}  // namespace tessera
