#include "engine/transport/send_peer.h"

#include <algorithm>
#include <chrono>

#include "engine/base/log.h"
#include "engine/base/text.h"

namespace tessera {
namespace {

/// Each slot's content begins so much further in the pattern, so that one that was written in
/// another's place is noticed. Keeps the alignment that GPUs copy fast.
constexpr int64_t kSelfTestShift = 64;

}  // namespace

std::vector<std::byte> make_self_test_pattern(std::span<const LandingRegion> regions) {
  int64_t num_bytes = 0;
  for (const LandingRegion& region : regions) {
    num_bytes = std::max(num_bytes, region.slot_bytes + (kSelfTestShift * region.num_slots));
  }
  std::vector<std::byte> pattern(static_cast<size_t>(num_bytes));
  uint32_t state = 1;
  for (std::byte& byte : pattern) {  // without a period near a slot's size
    state = (state * 1664525U) + 1013904223U;
    byte = static_cast<std::byte>(state >> 24U);
  }
  return pattern;
}

SendPeer::SendPeer(PeerId id,
                   std::span<const LandingRegion> regions,
                   const Surroundings& surroundings)
    : id_(id),
      options_(surroundings.options),
      port_(surroundings.port),
      counters_(surroundings.counters),
      listener_(surroundings.listener) {
  for (const LandingRegion& region : regions) {
    queues_.emplace_back(region.num_slots, region.slot_bytes, options_.max_puts);
    slot_bytes_.push_back(region.slot_bytes);
    batch_bytes_.push_back(std::min(surroundings.max_batch_bytes,
                                    region.slot_bytes * region.num_slots / kBatchesInFlight));
    num_slots_.push_back(region.num_slots);
  }
}

void SendPeer::start_self_test(std::span<const std::byte> pattern, Time now) {
  self_test_ = {0, 0, now};
  for (size_t rank = 0; rank < queues_.size(); ++rank) {
    const int64_t wanted = (options_.self_test_bytes + slot_bytes_[rank] - 1) / slot_bytes_[rank];
    const int64_t num_parcels = std::clamp<int64_t>(wanted, 1, num_slots_[rank]);
    for (int32_t slot = 0; slot < num_parcels; ++slot) {
      const std::byte* source = pattern.data() + (kSelfTestShift * slot);
      queues_[rank].push(
          {kSelfTestKey, static_cast<int32_t>(rank), slot, source, slot_bytes_[rank]});
      self_test_.num_bytes += slot_bytes_[rank];
      ++self_test_.num_open;
    }
  }
}

void SendPeer::send(const std::vector<Parcel>& parcels) {
  const auto has_rank = [this](const Parcel& parcel) {
    return parcel.rank >= 0 && static_cast<size_t>(parcel.rank) < queues_.size();
  };
  TESSERA_CHECK(std::all_of(parcels.begin(), parcels.end(), has_rank),
                "a parcel for a rank that the peer does not have");
  for (const Parcel& parcel : parcels) {
    queues_[static_cast<size_t>(parcel.rank)].push(parcel);
  }
}

void SendPeer::abort(const HandoffKey& key) {
  for (SlotQueue& queue : queues_) {
    queue.abort(key);
  }
  draining_.push_back(key);
  report_drained();
}

void SendPeer::report_drained() {
  std::erase_if(draining_, [this](const HandoffKey& key) {
    const bool is_read =
        std::any_of(queues_.begin(), queues_.end(), [&key](const SlotQueue& queue) {
          return queue.is_reading(key);
        });
    if (!is_read) {
      listener_.on_drained(id_, key);
    }
    return !is_read;
  });
}

void SendPeer::finish_puts(size_t rank, std::span<const SlotQueue::Put> puts) {
  for (const SlotQueue::Put& put : puts) {
    queues_[rank].finish_put(put);
  }
  report_drained();
}

void SendPeer::handle_acks(size_t rank, std::span<const Ack> acks, Time now) {
  std::vector<Landed> landed;
  for (const Ack& ack : acks) {
    handle(rank, ack, landed);
  }
  for (const Landed& entry : landed) {
    listener_.on_acked(id_, entry.key, entry.num_parcels);
  }
  if (!is_connected_ && self_test_.num_open == 0 && status_.is_ok()) {
    finish_self_test(now);
  }
}

void SendPeer::handle(size_t rank, const Ack& ack, std::vector<Landed>& landed) {
  const SlotQueue::Answer answer = queues_[rank].handle(ack);
  const bool is_final = answer.outcome == SlotQueue::Outcome::kLanded ||
                        answer.outcome == SlotQueue::Outcome::kGivenUp;
  if (!is_final) {
    return;
  }
  const bool has_landed = answer.outcome == SlotQueue::Outcome::kLanded;
  if (answer.key == kSelfTestKey) {
    --self_test_.num_open;
    if (!has_landed) {
      status_ = data_loss(str_cat("self-test: slots of rank ", rank, " did not hold what was put"));
    }
    return;
  }
  if (!has_landed) {
    listener_.on_parcel_failed(id_,
                               answer.key,
                               data_loss(str_cat("block ",
                                                 ack.block_index,
                                                 " was refused by rank ",
                                                 rank,
                                                 " ",
                                                 options_.max_puts,
                                                 " times")));
    return;
  }
  counters_.add_acked(rank, answer.num_bytes);
  if (landed.empty() || landed.back().key != answer.key) {
    landed.push_back({answer.key, 0});
  }
  ++landed.back().num_parcels;
}

void SendPeer::finish_self_test(Time now) {
  const double seconds =
      std::max(std::chrono::duration<double>(now - self_test_.started).count(), 1e-9);
  const double mb_per_s = static_cast<double>(self_test_.num_bytes) / seconds / 1e6;
  if (mb_per_s < static_cast<double>(options_.min_self_test_mb_per_s)) {
    status_ = unavailable(str_cat("self-test reached ",
                                  static_cast<int64_t>(mb_per_s),
                                  " MB/s, the floor is ",
                                  options_.min_self_test_mb_per_s));
    return;
  }
  is_connected_ = true;
  int rank = 0;
  for (const LaneStatistics& lane : counters_.read()) {
    log_info("transport_connected",
             "peer",
             id_,
             "rank",
             rank,
             "lane",
             lane.lane,
             "self_test_bytes",
             self_test_.num_bytes,
             "mb_per_s",
             static_cast<int64_t>(mb_per_s));
    ++rank;
  }
  listener_.on_connected(id_);
}

bool SendPeer::poll(Time now) {
  bool has_acted = false;
  for (size_t rank = 0; rank < queues_.size(); ++rank) {
    const bool has_put = start_puts(rank);
    has_acted = announce_due(rank, now) || has_put || has_acted;
  }
  return has_acted;
}

bool SendPeer::start_puts(size_t rank) {
  std::vector<SlotQueue::Put> puts;
  queues_[rank].start_puts(batch_bytes_[rank], puts);
  if (puts.empty()) {
    return false;
  }
  for (const SlotQueue::Put& put : puts) {
    counters_.add_posted(rank, is_connected_ ? put.num_bytes : 0);
  }
  port_.put(rank, puts);
  return true;
}

bool SendPeer::announce_due(size_t rank, Time now) {
  std::vector<Ready> due;
  queues_[rank].take_due(now, options_.resend_period, due);
  std::erase_if(due, [this](const Ready& ready) {
    if (ready.key == kSelfTestKey) {
      return false;
    }
    ++num_announced_;
    return num_announced_ == options_.faults.drop_ready;
  });
  for (size_t begin = 0; begin < due.size(); begin += kMaxBatch) {
    const size_t count = std::min(kMaxBatch, due.size() - begin);
    port_.announce(rank, std::span(due).subspan(begin, count));
  }
  return !due.empty();
}

bool SendPeer::is_busy() const noexcept {
  return std::any_of(
      queues_.begin(), queues_.end(), [](const SlotQueue& queue) { return queue.is_busy(); });
}

bool SendPeer::is_reading() const noexcept {
  return std::any_of(queues_.begin(), queues_.end(), [](const SlotQueue& queue) {
    return queue.is_reading_any();
  });
}

}  // namespace tessera
