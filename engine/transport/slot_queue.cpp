#include "engine/transport/slot_queue.h"

#include <algorithm>
#include <functional>

#include "engine/base/check.h"

namespace tessera {

SlotQueue::SlotQueue(int32_t num_slots, int64_t slot_bytes, int32_t max_puts)
    : slot_bytes_(slot_bytes), max_puts_(max_puts), slots_(static_cast<size_t>(num_slots)) {
  for (int32_t slot = num_slots; slot > 0; --slot) {
    free_.push_back(slot - 1);
  }
}

void SlotQueue::start_puts(int64_t max_bytes, std::vector<Put>& puts) {
  for (const int32_t slot : to_put_) {
    max_bytes -= begin_put(slot, puts);
  }
  to_put_.clear();
  while (max_bytes > 0 && !free_.empty() && !waiting_.empty()) {
    const int32_t number = free_.back();
    free_.pop_back();
    Slot& slot = slots_[static_cast<size_t>(number)];
    slot.parcel = waiting_.front();
    waiting_.pop_front();
    slot.num_puts = 0;
    slot.is_aborted = false;
    max_bytes -= begin_put(number, puts);
  }
}

int64_t SlotQueue::begin_put(int32_t number, std::vector<Put>& puts) {
  Slot& slot = slots_[static_cast<size_t>(number)];
  TESSERA_CHECK(slot.parcel.num_bytes > 0 && slot.parcel.num_bytes <= slot_bytes_,
                "a parcel larger than a landing slot");
  slot.state = State::kPutting;
  ++slot.generation;
  ++slot.num_puts;
  ++num_putting_;
  puts.push_back({number, slot.parcel.source, slot.parcel.num_bytes});
  return slot.parcel.num_bytes;
}

void SlotQueue::finish_put(const Put& put) {
  Slot& slot = slots_[static_cast<size_t>(put.slot)];
  TESSERA_CHECK(slot.state == State::kPutting, "no put into this slot was started");
  --num_putting_;
  if (slot.is_aborted) {
    release(put.slot);
    return;
  }
  slot.checksum = put.checksum;
  slot.state = State::kToAnnounce;
}

void SlotQueue::take_due(Time now,
                         Deadline::Clock::duration resend_period,
                         std::vector<Ready>& due) {
  for (size_t number = 0; number < slots_.size(); ++number) {
    Slot& slot = slots_[number];
    const bool is_late = slot.state == State::kAnnounced && now - slot.announced >= resend_period;
    if (slot.state != State::kToAnnounce && !is_late) {
      continue;
    }
    slot.state = State::kAnnounced;
    slot.announced = now;
    due.push_back({slot.parcel.key,
                   slot.parcel.block_index,
                   static_cast<int32_t>(number),
                   slot.generation,
                   slot.parcel.num_bytes,
                   slot.checksum});
  }
}

SlotQueue::Answer SlotQueue::handle(const Ack& ack) {
  if (ack.slot < 0 || static_cast<size_t>(ack.slot) >= slots_.size()) {
    return {};
  }
  const Slot& slot = slots_[static_cast<size_t>(ack.slot)];
  if (slot.state != State::kAnnounced || slot.generation != ack.generation ||
      slot.parcel.key != ack.key || slot.parcel.block_index != ack.block_index) {
    return {};
  }
  const Answer answer{Outcome::kLanded, slot.parcel.key, slot.parcel.num_bytes};
  if (slot.is_aborted) {
    release(ack.slot);
    return {};
  }
  switch (ack.code) {
    case AckCode::kLanded:
      release(ack.slot);
      return answer;
    case AckCode::kDropped:
      release(ack.slot);
      drop_waiting(ack.key);
      return {Outcome::kDropped, answer.key, answer.num_bytes};
    case AckCode::kDamaged:
      return handle_damaged(ack.slot);
    case AckCode::kLater:
      return {};
  }
  return {};
}

SlotQueue::Answer SlotQueue::handle_damaged(int32_t number) {
  Slot& slot = slots_[static_cast<size_t>(number)];
  const Answer answer{Outcome::kPutAgain, slot.parcel.key, slot.parcel.num_bytes};
  if (slot.num_puts < max_puts_) {
    slot.state = State::kToPut;
    to_put_.push_back(number);
    return answer;
  }
  release(number);
  return {Outcome::kGivenUp, answer.key, answer.num_bytes};
}

void SlotQueue::release(int32_t number) {
  slots_[static_cast<size_t>(number)].state = State::kFree;
  free_.insert(std::upper_bound(free_.begin(), free_.end(), number, std::greater<>()), number);
}

void SlotQueue::drop_waiting(const HandoffKey& key) {
  std::erase_if(waiting_, [&key](const Parcel& parcel) { return parcel.key == key; });
}

void SlotQueue::abort(const HandoffKey& key) {
  drop_waiting(key);
  std::erase_if(to_put_, [this, &key](int32_t slot) {
    return slots_[static_cast<size_t>(slot)].parcel.key == key;
  });
  for (size_t number = 0; number < slots_.size(); ++number) {
    Slot& slot = slots_[number];
    if (slot.state == State::kFree || slot.is_aborted || slot.parcel.key != key) {
      continue;
    }
    slot.is_aborted = true;
    if (slot.state == State::kToPut || slot.state == State::kToAnnounce) {
      release(static_cast<int32_t>(number));
    }
  }
}

bool SlotQueue::is_reading(const HandoffKey& key) const {
  return std::any_of(slots_.begin(), slots_.end(), [&key](const Slot& slot) {
    return slot.state == State::kPutting && slot.parcel.key == key;
  });
}

bool SlotQueue::is_busy() const noexcept {
  return !waiting_.empty() || free_.size() < slots_.size();
}

}  // namespace tessera
