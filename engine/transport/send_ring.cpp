#include "engine/transport/send_ring.h"

#include <algorithm>
#include <utility>

#include "engine/base/log.h"
#include "engine/transport/device_guard.h"

namespace tessera {

Result<std::unique_ptr<SendRing>> SendRing::create(DevicePool& pool,
                                                   int32_t num_slots,
                                                   int64_t slot_bytes) {
  TESSERA_TRY(kernels::DeviceBuffer memory, pool.take(num_slots * slot_bytes));
  return std::unique_ptr<SendRing>(new SendRing(pool, slot_bytes, std::move(memory)));
}

SendRing::SendRing(DevicePool& pool, int64_t slot_bytes, kernels::DeviceBuffer memory)
    : pool_(pool), mover_(pool.mover()), slot_bytes_(slot_bytes), memory_(std::move(memory)) {}

SendRing::~SendRing() {
  const Status status = guard_device([this] {
    for (const Packing& packing : packing_) {
      static_cast<void>(mover_.finish_blocking(packing.batch));
    }
  });
  if (!status.is_ok()) {
    log_error("transport_device_failed", "status", status.to_string());
    return;
  }
  pool_.give_back(std::move(memory_));
}

std::byte* SendRing::slot(int32_t number) const noexcept {
  return static_cast<std::byte*>(memory_.data()) + (number * slot_bytes_);
}

Status SendRing::pack(std::span<const SlotQueue::Put> puts) {
  const auto max_images = static_cast<size_t>(mover_.max_images());
  Status status;
  while (!puts.empty() && status.is_ok()) {
    const auto batch = puts.first(std::min(max_images, puts.size()));
    puts = puts.subspan(batch.size());
    status = guard_device([&] { begin(batch); });
  }
  return status;
}

void SendRing::begin(std::span<const SlotQueue::Put> puts) {
  std::vector<kernels::ImageMover::Image> images;
  for (const SlotQueue::Put& put : puts) {
    images.push_back({slot(put.slot), put.source, put.num_bytes});
  }
  packing_.push_back({mover_.begin(images), {puts.begin(), puts.end()}});
}

Result<std::vector<SlotQueue::Put>> SendRing::take_packed() {
  std::vector<SlotQueue::Put> puts;
  const Status status = guard_device([&] {
    const bool is_done = !packing_.empty() && mover_.is_done(packing_.front().batch);
    puts = is_done ? finish_first() : std::move(puts);
  });
  if (!status.is_ok()) {
    return status;
  }
  return puts;
}

std::vector<SlotQueue::Put> SendRing::finish_first() {
  Packing packing = std::move(packing_.front());
  packing_.pop_front();
  std::vector<SlotQueue::Put> puts = std::move(packing.puts);
  const std::vector<uint64_t> checksums = mover_.finish_blocking(packing.batch);
  for (size_t i = 0; i < puts.size(); ++i) {
    puts[i].checksum = checksums[i];
  }
  std::sort(puts.begin(), puts.end(), [](const SlotQueue::Put& a, const SlotQueue::Put& b) {
    return a.slot < b.slot;
  });
  return puts;
}

std::vector<SendRing::Run> SendRing::runs(std::span<const SlotQueue::Put> puts) const {
  std::vector<Run> runs;
  int32_t next = -1;
  for (const SlotQueue::Put& put : puts) {
    if (put.slot != next) {
      runs.push_back({slot(put.slot), 0, put.slot});
    }
    Run& run = runs.back();
    run.num_bytes = ((put.slot - run.first_slot) * slot_bytes_) + put.num_bytes;
    next = put.slot + 1;
  }
  return runs;
}

}  // namespace tessera
