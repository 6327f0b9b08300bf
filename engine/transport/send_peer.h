// One decode group as the sender sees it: the slots of its ranks, the self-test, aborts that wait
// for puts to end. The same for every transport. Transport thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/transport/kv_sender.h"
#include "engine/transport/landing.h"
#include "engine/transport/lane_counters.h"
#include "engine/transport/messages.h"
#include "engine/transport/slot_queue.h"
#include "engine/transport/transport_options.h"

namespace tessera {

/// Bytes for a self-test of these regions: a slot, and kSelfTestShift for each slot.
[[nodiscard]] std::vector<std::byte> make_self_test_pattern(std::span<const LandingRegion> regions);

class SendPeer final {
 public:
  /// One flush covers about so much: enough to hide its round trip, little enough for the peer to
  /// copy in while the next is under way. Of a small region a part, for the same reason. A GPU's
  /// lane and copies are a hundred times as fast, the round trip is not.
  static constexpr int64_t kHostBatchBytes = int64_t{1} << 20U;
  static constexpr int64_t kBatchesInFlight = 4;
  static constexpr int64_t kDeviceBatchBytes = int64_t{32} << 20U;

  using Time = SlotQueue::Time;
  /// What moves the bytes. Ranks are positions in the regions of connect().
  class Port {
   public:
    Port() = default;
    virtual ~Port() = default;
    Port(const Port&) = delete;
    Port& operator=(const Port&) = delete;
    /// Starts the puts; finish_puts() follows, with checksums, when they are visible at the peer.
    virtual void put(size_t rank, std::span<SlotQueue::Put> puts) = 0;
    virtual void announce(size_t rank, std::span<const Ready> batch) = 0;
  };

  /// What other parts of the sender lend; all outlive the peer.
  struct Surroundings {
    const SenderOptions& options;
    Port& port;
    LaneCounters& counters;
    KvSender::Listener& listener;
    int64_t max_batch_bytes = kHostBatchBytes;
  };

  SendPeer(PeerId id, std::span<const LandingRegion> regions, const Surroundings& surroundings);

  /// `pattern` is as make_self_test_pattern() makes it, wherever puts can read it. It stays valid
  /// until the self-test ends, in
  /// on_connected(), or in a status() that is not ok.
  void start_self_test(std::span<const std::byte> pattern, Time now);
  void send(const std::vector<Parcel>& parcels);
  void abort(const HandoffKey& key);
  void finish_puts(size_t rank, std::span<const SlotQueue::Put> puts);
  void handle_acks(size_t rank, std::span<const Ack> acks, Time now);
  /// Starts puts and announces what is due; true when anything was. To be called again soon, then.
  bool poll(Time now);
  /// Not ok: the peer is of no use.
  [[nodiscard]] const Status& status() const noexcept { return status_; }
  [[nodiscard]] bool is_connected() const noexcept { return is_connected_; }
  [[nodiscard]] bool is_busy() const noexcept;
  [[nodiscard]] bool is_reading() const noexcept;

 private:
  struct SelfTest {
    int64_t num_open = 0;
    int64_t num_bytes = 0;
    Time started;
  };
  struct Landed {
    HandoffKey key;
    int64_t num_parcels = 0;
  };

  void handle(size_t rank, const Ack& ack, std::vector<Landed>& landed);
  void finish_self_test(Time now);
  bool start_puts(size_t rank);
  bool announce_due(size_t rank, Time now);
  void report_drained();

  const PeerId id_;
  const SenderOptions& options_;
  Port& port_;
  LaneCounters& counters_;
  KvSender::Listener& listener_;
  std::vector<int64_t> slot_bytes_;
  std::vector<int64_t> batch_bytes_;  ///< of puts that are started together
  std::vector<int32_t> num_slots_;
  std::vector<SlotQueue> queues_;
  std::vector<HandoffKey> draining_;
  SelfTest self_test_;
  bool is_connected_ = false;
  Status status_;
  int64_t num_announced_ = 0;  ///< for faults
};

}  // namespace tessera
