#include "engine/transport/ucx_peer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/transport/checksum.h"
#include "engine/transport/device_guard.h"
#include "engine/transport/ucx_lane.h"

namespace tessera {
namespace {

using MessageKind = UcxLink::MessageKind;

/// A forced close takes microseconds; after this the workers are destroyed as they are.
constexpr std::chrono::seconds kCloseTimeout{2};
/// Not every step of closing announces itself by an event.
constexpr std::chrono::milliseconds kClosePeriod{1};
/// A device packs in microseconds; after this something holds it up.
constexpr std::chrono::seconds kDrainTimeout{2};
constexpr std::chrono::milliseconds kStuckPeriod{100};
constexpr int32_t kMaxSlots = 65536;
constexpr int64_t kMaxSlotBytes = int64_t{1} << 32U;

Status check_region(const LandingRegion& region) {
  const bool is_sane = region.num_slots > 0 && region.num_slots <= kMaxSlots &&
                       region.slot_bytes > 0 && region.slot_bytes <= kMaxSlotBytes &&
                       !region.worker_address.empty() && !region.remote_key.empty();
  return is_sane ? Status::ok()
                 : invalid_argument(str_cat("landing region with ",
                                            region.num_slots,
                                            " slots of ",
                                            region.slot_bytes,
                                            " bytes"));
}

/// As many slots of each region as a send ring may mirror, in whole batches: a small one costs as
/// much time as a large one.
std::vector<LandingRegion> as_large_as_rings(std::vector<LandingRegion> regions,
                                             int64_t max_ring_bytes) {
  for (LandingRegion& region : regions) {
    if (region.num_slots < 1) {
      continue;  // check_region() has its say
    }
    const int64_t fitting = max_ring_bytes / std::max<int64_t>(1, region.slot_bytes);
    const int64_t num_slots = std::clamp<int64_t>(fitting, 1, region.num_slots);
    region.num_slots = static_cast<int32_t>(num_slots < SendPeer::kBatchesInFlight
                                                ? num_slots
                                                : num_slots / SendPeer::kBatchesInFlight *
                                                      SendPeer::kBatchesInFlight);
  }
  return regions;
}

}  // namespace

UcxPeer::UcxPeer(const SenderAccounts::Opened& account,
                 std::vector<LandingRegion> regions,
                 const SenderOptions& options,
                 KvSender::Listener& listener,
                 DevicePool* pool)
    : id_(account.id),
      counters_(account.counters),
      regions_(pool == nullptr ? std::move(regions)
                               : as_large_as_rings(std::move(regions), options.max_ring_bytes)),
      options_(options),
      core_(account.id,
            regions_,
            {options,
             *this,
             *counters_,
             listener,
             pool != nullptr ? SendPeer::kDeviceBatchBytes : SendPeer::kHostBatchBytes}),
      pool_(pool),
      mover_(pool != nullptr ? &pool->mover() : nullptr) {}

void UcxPeer::connect(UcxContext& context, Time now) {
  deadline_ = now + options_.connect_timeout;
  Status status = regions_.empty() ? invalid_argument("a peer without ranks") : Status::ok();
  for (size_t rank = 0; rank < regions_.size(); ++rank) {
    // Also after a failure: a rank that hears nothing cannot use its region again.
    const Status greeted = greet_rank(context, rank);
    status = status.is_ok() ? greeted : status;
    status = status.is_ok() ? prepare_rank(rank) : status;
  }
  if (status.is_ok() && mover_ != nullptr) {
    status = start_self_test(now);
  } else if (status.is_ok()) {
    pattern_ = make_self_test_pattern(regions_);
    core_.start_self_test(pattern_, now);
  }
  if (!status.is_ok()) {
    status_ = std::move(status);
    leave(now);
  }
}

/// In device memory.
Status UcxPeer::start_self_test(Time now) {
  const std::vector<std::byte> pattern = make_self_test_pattern(regions_);
  const auto num_bytes = static_cast<int64_t>(pattern.size());
  TESSERA_TRY(device_pattern_, pool_->take(num_bytes));
  TESSERA_RETURN_IF_ERROR(guard_device(
      [&] { mover_->write_blocking(device_pattern_.data(), pattern.data(), num_bytes); }));
  core_.start_self_test({static_cast<std::byte*>(device_pattern_.data()), pattern.size()}, now);
  return Status::ok();
}

Status UcxPeer::greet_rank(UcxContext& context, size_t rank) {
  const LandingRegion& region = regions_[rank];
  TESSERA_RETURN_IF_ERROR(check_region(region));
  TESSERA_TRY(std::unique_ptr<UcxLink> made, UcxLink::create(context));
  UcxLink& link = *links_.emplace_back(RankLink{.ring = nullptr, .ucx = std::move(made)}).ucx;
  TESSERA_RETURN_IF_ERROR(link.connect(region.worker_address));
  link.send(MessageKind::kHello, encode(LinkHello{region.connection, link.address()}));
  return Status::ok();
}

Status UcxPeer::prepare_rank(size_t rank) {
  const LandingRegion& region = regions_[rank];
  UcxLink& link = *links_[rank].ucx;
  TESSERA_RETURN_IF_ERROR(link.import_remote_key(region.remote_key));
  if (mover_ == nullptr && UcxLink::is_host_key(region.remote_key)) {
    links_[rank].slots = link.find_shared(region.base_address);
  } else if (mover_ != nullptr && mover_->is_cuda()) {
    link.set_cuda_sources();
  }
  const std::string lane = link.lane();
  counters_->set_lane(rank, lane);
  TESSERA_RETURN_IF_ERROR(check_lane(rank, lane));
  if (mover_ != nullptr) {
    TESSERA_TRY(links_[rank].ring, SendRing::create(*pool_, region.num_slots, region.slot_bytes));
  }
  return Status::ok();
}

Status UcxPeer::check_lane(size_t rank, const std::string& lane) const {
  const bool is_source_cuda = mover_ != nullptr && mover_->is_cuda();
  const bool is_target_host = UcxLink::is_host_key(regions_[rank].remote_key);
  const bool is_direct = is_source_cuda ? !is_target_host && has_device_lane(lane) : is_target_host;
  if (options_.allow_staged_handoff || is_direct) {
    return Status::ok();
  }
  return failed_precondition(str_cat(
      "the cache of this worker is in ",
      is_source_cuda ? "GPU" : "host",
      " memory, the landing region of rank ",
      rank,
      " in ",
      is_target_host ? "host" : "GPU",
      " memory, and the lane between them, ",
      lane,
      ", has to stage the bytes. Direct are GPU to GPU over cuda_ipc (one host, one PID and "
      "IPC namespace, each process sees both GPUs) or RDMA, and host to host; "
      "--allow-staged-handoff takes any lane"));
}

void UcxPeer::put(size_t rank, std::span<SlotQueue::Put> puts) {
  if (links_[rank].slots != nullptr) {
    store(rank, links_[rank].slots, puts);
    return;
  }
  if (mover_ != nullptr) {
    const Status status = links_[rank].ring->pack(puts);
    device_status_ = device_status_.is_ok() ? status : device_status_;
    return;
  }
  UcxLink& link = *links_[rank].ucx;
  for (SlotQueue::Put& put : puts) {
    put.checksum = image_checksum(put.source, put.num_bytes);
    link.put(put.source, put.num_bytes, slot_address(rank, put.slot));
  }
  std::vector<SlotQueue::Put> flushed(puts.begin(), puts.end());
  link.flush([this, rank, flushed = std::move(flushed)] { core_.finish_puts(rank, flushed); });
}

uint64_t UcxPeer::slot_address(size_t rank, int32_t slot) const {
  const LandingRegion& region = regions_[rank];
  return region.base_address + static_cast<uint64_t>(slot * region.slot_bytes);
}

void UcxPeer::store(size_t rank, std::byte* slots, std::span<SlotQueue::Put> puts) {
  for (SlotQueue::Put& put : puts) {
    put.checksum = copy_with_checksum(
        slots + (put.slot * regions_[rank].slot_bytes), put.source, put.num_bytes);
  }
  core_.finish_puts(rank, puts);
}

/// Only what the device has packed is put: UCX's copies know nothing of its streams.
bool UcxPeer::put_packed(size_t rank) {
  RankLink& link = links_[rank];
  if (link.ring == nullptr || !link.ring->is_packing()) {
    return false;
  }
  Result<std::vector<SlotQueue::Put>> packed = link.ring->take_packed();
  if (!packed.is_ok()) {
    device_status_ = packed.status();
    return true;
  }
  const std::vector<SlotQueue::Put> puts = std::move(packed).value();
  if (puts.empty()) {
    return true;
  }
  for (const SendRing::Run& run : link.ring->runs(puts)) {
    link.ucx->put(run.source, run.num_bytes, slot_address(rank, run.first_slot));
  }
  link.ucx->flush([this, rank, puts] { core_.finish_puts(rank, puts); });
  return true;
}

void UcxPeer::announce(size_t rank, std::span<const Ready> batch) {
  links_[rank].ucx->send(MessageKind::kReady, encode(batch));
}

bool UcxPeer::turn(Time now) {
  bool has_acted = false;
  for (size_t rank = 0; rank < links_.size(); ++rank) {
    has_acted = turn_rank(rank, now) || has_acted;
    has_acted = (state_ != State::kClosing && put_packed(rank)) || has_acted;
  }
  switch (state_) {
    case State::kOpen:
      has_acted = core_.poll(now) || has_acted;
      check_open(now);
      break;
    case State::kLeaving:
      turn_leaving(now);
      break;
    case State::kClosing:
      end_close(now);
      break;
    case State::kDraining:
      turn_draining(now);
      break;
  }
  return has_acted;
}

bool UcxPeer::turn_rank(size_t rank, Time now) {
  RankLink& link = links_[rank];
  const bool has_acted = link.ucx->progress();
  for (const UcxLink::Message& message : link.ucx->take_messages()) {
    if (message.kind == MessageKind::kGoodbye) {
      link.is_released = true;
    } else if (message.kind == MessageKind::kAck && state_ == State::kOpen) {
      core_.handle_acks(rank, decode_ack(message.bytes), now);
    }
  }
  return has_acted;
}

void UcxPeer::check_open(Time now) {
  if (!device_status_.is_ok()) {
    begin_close(device_status_, now);
    return;
  }
  for (const RankLink& link : links_) {
    if (!link.ucx->failure().is_ok()) {
      begin_close(link.ucx->failure(), now);
      return;
    }
  }
  status_ = core_.status();
  if (core_.is_connected()) {
    free_pattern();
  } else if (status_.is_ok() && now >= deadline_) {
    status_ =
        Status(StatusCode::kDeadlineExceeded, "the peer did not answer the self-test in time");
  }
  if (!status_.is_ok()) {
    leave(now);
  }
}

void UcxPeer::free_pattern() {
  pattern_ = {};
  if (device_pattern_.data() != nullptr) {
    pool_->give_back(std::move(device_pattern_));
  }
}

void UcxPeer::leave(Time now) {
  if (state_ != State::kOpen) {
    return;
  }
  state_ = State::kLeaving;
  deadline_ = now + options_.leave_timeout;
}

void UcxPeer::turn_leaving(Time now) {
  const bool is_reading = core_.is_reading();
  bool is_done = true;
  bool is_in_vain = now >= deadline_;
  for (RankLink& link : links_) {
    const bool has_failed = !link.ucx->failure().is_ok() || !link.ucx->is_connected();
    if (!link.has_said_goodbye && !is_reading) {
      link.ucx->send(MessageKind::kGoodbye, "bye");
      link.has_said_goodbye = true;
    }
    is_done = is_done && (link.is_released || has_failed);
    is_in_vain = is_in_vain || (has_failed && is_reading);  // its puts do not end
  }
  if (is_done || is_in_vain) {
    begin_close(status_, now);
  }
}

void UcxPeer::begin_close(Status status, Time now) {
  status_ = std::move(status);
  state_ = State::kClosing;
  deadline_ = now + kCloseTimeout;
  for (const RankLink& link : links_) {
    link.ucx->begin_close();
  }
}

void UcxPeer::end_close(Time now) {
  const bool are_closed = std::all_of(
      links_.begin(), links_.end(), [](const RankLink& link) { return link.ucx->is_closed(); });
  if (are_closed || now >= deadline_) {
    end_links(now);
  }
}

/// Copies that the workers left to the device read rings only, which stay where they are, and write
/// regions that did not hear a goodbye. Sources are read by what packs the rings.
void UcxPeer::end_links(Time now) {
  bool is_packing = !device_status_.is_ok();
  for (RankLink& link : links_) {
    link.ucx.reset();
    is_packing = is_packing || (link.ring != nullptr && link.ring->is_packing());
  }
  for (RankLink& link : links_) {
    if (is_packing && link.ring != nullptr) {
      undrained_.push_back(std::move(link.ring));
    }
  }
  links_.clear();
  if (is_packing) {
    state_ = State::kDraining;
    deadline_ = now + kDrainTimeout;
    return;
  }
  free_pattern();
}

void UcxPeer::turn_draining(Time now) {
  bool is_drained = false;
  Status status = guard_device([&] {
    drain_mark_ = drain_mark_ ? drain_mark_ : mover_->begin({});
    is_drained = mover_->is_done(*drain_mark_);
    if (is_drained) {
      static_cast<void>(mover_->finish_blocking(*drain_mark_));
    }
  });
  if (status.is_ok() && is_drained) {
    undrained_.clear();
    free_pattern();
    state_ = State::kClosing;
    return;
  }
  if (status.is_ok() && now >= deadline_) {
    status = Status(StatusCode::kDeadlineExceeded, "the device does not get on");
  }
  if (!status.is_ok() && !is_stuck_) {
    is_stuck_ = true;
    log_error("transport_sources_kept", "peer", id_, "status", status.to_string());
  }
}

bool UcxPeer::is_active() const noexcept {
  return state_ == State::kOpen ? core_.is_busy() : state_ != State::kDraining;
}

bool UcxPeer::arm() {
  return std::all_of(
      links_.begin(), links_.end(), [](const RankLink& link) { return link.ucx->arm(); });
}

UcxPeer::Time UcxPeer::next_timer(Time now) const {
  const Time resend = now + (options_.resend_period / 4);
  if (state_ == State::kOpen && core_.is_connected()) {
    return core_.is_busy() ? resend : Time::max();
  }
  if (state_ == State::kDraining) {
    return now + (is_stuck_ ? kStuckPeriod : kClosePeriod);
  }
  return std::min(deadline_, state_ == State::kClosing ? now + kClosePeriod : resend);
}

std::vector<int> UcxPeer::event_fds() const {
  std::vector<int> fds;
  for (const RankLink& link : links_) {
    fds.push_back(link.ucx->event_fd());
  }
  return fds;
}

}  // namespace tessera
