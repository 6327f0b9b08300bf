#include "engine/transport/ucx_peer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/transport/checksum.h"

namespace tessera {
namespace {

using MessageKind = UcxLink::MessageKind;

/// A forced close takes microseconds; after this the workers are destroyed as they are.
constexpr std::chrono::seconds kCloseTimeout{2};
/// Not every step of closing announces itself by an event.
constexpr std::chrono::milliseconds kClosePeriod{1};
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

/// Bytes without a period near a slot's size.
std::vector<std::byte> make_pattern(std::span<const LandingRegion> regions) {
  int64_t num_bytes = 0;
  for (const LandingRegion& region : regions) {
    num_bytes = std::max(num_bytes, region.slot_bytes + (int64_t{8} * region.num_slots));
  }
  std::vector<std::byte> pattern(static_cast<size_t>(num_bytes));
  uint32_t state = 1;
  for (std::byte& byte : pattern) {
    state = (state * 1664525U) + 1013904223U;
    byte = static_cast<std::byte>(state >> 24U);
  }
  return pattern;
}

}  // namespace

UcxPeer::UcxPeer(const SenderAccounts::Opened& account,
                 std::vector<LandingRegion> regions,
                 const SenderOptions& options,
                 KvSender::Listener& listener)
    : counters_(account.counters),
      regions_(std::move(regions)),
      options_(options),
      core_(account.id, regions_, {options, *this, *counters_, listener}) {}

void UcxPeer::connect(UcxContext& context, bool has_device_memory, Time now) {
  deadline_ = now + options_.connect_timeout;
  Status status = regions_.empty() ? invalid_argument("a peer without ranks") : Status::ok();
  for (size_t rank = 0; rank < regions_.size() && status.is_ok(); ++rank) {
    status = connect_rank(context, rank, has_device_memory);
  }
  if (!status.is_ok()) {
    begin_close(std::move(status), now);
    return;
  }
  pattern_ = make_pattern(regions_);
  core_.start_self_test(pattern_, now);
}

Status UcxPeer::connect_rank(UcxContext& context, size_t rank, bool has_device_memory) {
  const LandingRegion& region = regions_[rank];
  TESSERA_RETURN_IF_ERROR(check_region(region));
  TESSERA_TRY(std::unique_ptr<UcxLink> made, UcxLink::create(context));
  UcxLink& link = *links_.emplace_back(RankLink{std::move(made)}).ucx;
  TESSERA_RETURN_IF_ERROR(link.connect(region.worker_address));
  TESSERA_RETURN_IF_ERROR(link.import_remote_key(region.remote_key));
  links_.back().slots = link.find_shared(region.base_address);
  const std::string lane = link.lane();
  counters_->set_lane(rank, lane);
  if (has_device_memory && !options_.allow_staged_handoff &&
      lane.find("tcp") != std::string::npos) {
    return failed_precondition(
        str_cat("rank ",
                rank,
                " is reached over ",
                lane,
                ", which device memory would have to be staged for; this is not allowed"));
  }
  link.send(MessageKind::kHello, encode(LinkHello{region.connection, link.address()}));
  return Status::ok();
}

void UcxPeer::put(size_t rank, std::span<SlotQueue::Put> puts) {
  UcxLink& link = *links_[rank].ucx;
  const LandingRegion& region = regions_[rank];
  std::byte* slots = links_[rank].slots;
  if (slots != nullptr) {
    for (SlotQueue::Put& put : puts) {
      put.checksum =
          copy_with_checksum(slots + (put.slot * region.slot_bytes), put.source, put.num_bytes);
    }
    core_.finish_puts(rank, puts);
    return;
  }
  for (SlotQueue::Put& put : puts) {
    const int64_t offset = put.slot * region.slot_bytes;
    put.checksum = image_checksum(put.source, put.num_bytes);
    link.put(put.source, put.num_bytes, region.base_address + static_cast<uint64_t>(offset));
  }
  std::vector<SlotQueue::Put> flushed(puts.begin(), puts.end());
  link.flush([this, rank, flushed = std::move(flushed)] { core_.finish_puts(rank, flushed); });
}

void UcxPeer::announce(size_t rank, std::span<const Ready> batch) {
  links_[rank].ucx->send(MessageKind::kReady, encode(batch));
}

bool UcxPeer::turn(Time now) {
  bool has_acted = false;
  for (size_t rank = 0; rank < links_.size(); ++rank) {
    has_acted = turn_rank(rank, now) || has_acted;
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
  if (!core_.status().is_ok()) {
    begin_close(core_.status(), now);
    return;
  }
  for (const RankLink& link : links_) {
    if (!link.ucx->failure().is_ok()) {
      begin_close(link.ucx->failure(), now);
      return;
    }
  }
  if (core_.is_connected()) {
    pattern_ = {};
  } else if (now >= deadline_) {
    begin_close(
        Status(StatusCode::kDeadlineExceeded, "the peer did not answer the self-test in time"),
        now);
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
  bool is_done = true;
  bool has_failed = now >= deadline_;
  for (RankLink& link : links_) {
    if (!link.has_said_goodbye && !core_.is_reading()) {
      link.ucx->send(MessageKind::kGoodbye, "bye");
      link.has_said_goodbye = true;
    }
    is_done = is_done && link.is_released;
    has_failed = has_failed || !link.ucx->failure().is_ok();
  }
  if (is_done || has_failed) {
    begin_close(Status::ok(), now);
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
    links_.clear();
  }
}

bool UcxPeer::is_active() const noexcept {
  return state_ != State::kOpen || core_.is_busy();
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
