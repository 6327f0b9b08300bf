// One decode group over UCX: a link to each rank, from connecting to the last operation's end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/transport/device_pool.h"
#include "engine/transport/send_peer.h"
#include "engine/transport/send_ring.h"
#include "engine/transport/sender_accounts.h"
#include "engine/transport/ucx_link.h"
#include "kernels/core/image_mover.h"

namespace tessera {

/// The sender's thread only.
class UcxPeer final : private SendPeer::Port {
 public:
  using Time = SendPeer::Time;

  /// `options`, `listener` and `pool` (of the device that parcels lie in; null: the host) outlive
  /// the peer.
  UcxPeer(const SenderAccounts::Opened& account,
          std::vector<LandingRegion> regions,
          const SenderOptions& options,
          KvSender::Listener& listener,
          DevicePool* pool);

  /// Makes the links and starts the self-test. Where that is impossible the ranks are told that
  /// nothing was put.
  void connect(UcxContext& context, Time now);
  /// Ends what is in flight, tells the ranks, closes. is_over() some time later.
  void leave(Time now);
  [[nodiscard]] bool turn(Time now);
  /// All links are gone and the device has packed what it began to: nothing reads memory for this
  /// peer.
  [[nodiscard]] bool is_over() const noexcept {
    return links_.empty() && state_ != State::kDraining;
  }
  /// The device failed, or does not get on: it may read sources still, and the peer is not over
  /// before it does not.
  [[nodiscard]] bool is_stuck() const noexcept { return is_stuck_; }
  /// Why it is over, unless it left.
  [[nodiscard]] const Status& status() const noexcept { return status_; }
  [[nodiscard]] bool is_active() const noexcept;
  [[nodiscard]] bool arm();
  [[nodiscard]] Time next_timer(Time now) const;
  [[nodiscard]] std::vector<int> event_fds() const;
  [[nodiscard]] SendPeer& core() noexcept { return core_; }

 private:
  enum class State : uint8_t { kOpen, kLeaving, kClosing, kDraining };
  struct RankLink {
    std::unique_ptr<SendRing> ring;  ///< of images in a device's memory
    std::unique_ptr<UcxLink> ucx;
    std::byte* slots = nullptr;     ///< where this process can store into them itself
    bool has_said_goodbye = false;  ///< we did
    bool is_released = false;       ///< and the rank has answered
  };

  void put(size_t rank, std::span<SlotQueue::Put> puts) override;
  void announce(size_t rank, std::span<const Ready> batch) override;
  Status greet_rank(UcxContext& context, size_t rank);
  Status prepare_rank(size_t rank);
  [[nodiscard]] Status check_lane(size_t rank, const std::string& lane) const;
  Status start_self_test(Time now);
  void free_pattern();
  [[nodiscard]] uint64_t slot_address(size_t rank, int32_t slot) const;
  void store(size_t rank, std::byte* slots, std::span<SlotQueue::Put> puts);
  /// True while a device packs.
  bool put_packed(size_t rank);
  bool turn_rank(size_t rank, Time now);
  void turn_leaving(Time now);
  void check_open(Time now);
  void begin_close(Status status, Time now);
  void end_close(Time now);
  void end_links(Time now);
  void turn_draining(Time now);

  const PeerId id_;
  const std::shared_ptr<LaneCounters> counters_;  // shared with the accounts
  const std::vector<LandingRegion> regions_;
  const SenderOptions& options_;
  SendPeer core_;
  std::vector<RankLink> links_;
  // Read by the self-test's puts: in the memory that parcels lie in.
  std::vector<std::byte> pattern_;
  kernels::DeviceBuffer device_pattern_;
  DevicePool* const pool_;
  kernels::ImageMover* const mover_;
  Status device_status_;
  State state_ = State::kOpen;
  Time deadline_;  // of connecting, leaving, closing or draining
  // Of links that are gone, with what the device had not packed then.
  std::vector<std::unique_ptr<SendRing>> undrained_;
  std::optional<int64_t> drain_mark_;  ///< a batch behind all that was begun for this peer
  bool is_stuck_ = false;
  Status status_;
};

}  // namespace tessera
