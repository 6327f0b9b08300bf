#include "engine/transport/landing_table.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/transport/checksum.h"

namespace tessera {

LandingTable::LandingTable(const CacheBlocks& blocks, TransportFaults faults)
    : blocks_(blocks), faults_(faults) {
  TESSERA_CHECK(
      blocks.image_bytes > 0 && blocks.image_bytes <= blocks.stride_bytes,
      str_cat("images of ", blocks.image_bytes, " bytes, ", blocks.stride_bytes, " apart"));
}

void LandingTable::add_region(uint64_t connection, const LandingSlots& slots) {
  const std::lock_guard lock(mutex_);
  Region region{slots, std::vector<Slot>(static_cast<size_t>(slots.num_slots))};
  const bool is_new = regions_.emplace(connection, std::move(region)).second;
  TESSERA_CHECK(is_new, "a connection has one landing region");
}

void LandingTable::remove_region(uint64_t connection) {
  const std::lock_guard lock(mutex_);
  regions_.erase(connection);
}

bool LandingTable::expect(uint64_t connection,
                          const HandoffKey& key,
                          std::vector<int32_t> block_ids) {
  const auto is_expected = [](int32_t block) { return block >= 0; };
  const bool are_inside = std::all_of(block_ids.begin(), block_ids.end(), [this](int32_t block) {
    return block < blocks_.num_blocks;
  });
  TESSERA_CHECK(are_inside, "a block id beyond the cache");
  Expectation expectation;
  expectation.connection = connection;
  expectation.num_missing = std::count_if(block_ids.begin(), block_ids.end(), is_expected);
  expectation.has_landed.resize(block_ids.size());
  expectation.block_ids = std::move(block_ids);
  const bool is_complete = expectation.num_missing == 0;
  const std::lock_guard lock(mutex_);
  const bool is_new = expectations_.emplace(key, std::move(expectation)).second;
  TESSERA_CHECK(is_new, str_cat("handoff ", key.to_string(), " is expected already"));
  return is_complete;
}

void LandingTable::forget(const HandoffKey& key) {
  const std::lock_guard lock(mutex_);
  const auto found = expectations_.find(key);
  const bool was_complete = found != expectations_.end() && found->second.num_missing == 0;
  if (found != expectations_.end()) {
    expectations_.erase(found);
  }
  const AckCode code = was_complete ? AckCode::kLanded : AckCode::kDropped;
  if (!forgotten_.emplace(key, code).second) {
    return;
  }
  forgotten_order_.push_back(key);
  if (forgotten_order_.size() > kMaxForgotten) {
    forgotten_.erase(forgotten_order_.front());
    forgotten_order_.pop_front();
  }
}

LandingTable::Answer LandingTable::refuse() {
  ++counts_.refused_parcels;
  return {AckCode::kDamaged};
}

LandingTable::Answer LandingTable::land(uint64_t connection, const Ready& ready) {
  const std::lock_guard lock(mutex_);
  const auto found = regions_.find(connection);
  if (found == regions_.end()) {
    return {AckCode::kDropped};
  }
  Region& region = found->second;
  if (ready.slot < 0 || ready.slot >= region.memory.num_slots) {
    return refuse();
  }
  Slot& slot = region.slots[static_cast<size_t>(ready.slot)];
  if (ready.generation <= slot.generation) {
    return {ready.generation == slot.generation ? slot.code : AckCode::kDropped};
  }
  const Answer answer = land_in(region, connection, ready);
  if (answer.code != AckCode::kLater) {
    slot = {ready.generation, answer.code};
  }
  return answer;
}

LandingTable::Answer LandingTable::land_in(Region& region,
                                           uint64_t connection,
                                           const Ready& ready) {
  if (ready.key == kSelfTestKey) {
    return check_self_test(region, ready);
  }
  const auto expected = expectations_.find(ready.key);
  if (expected != expectations_.end() && expected->second.connection == connection) {
    return land_expected(region, expected->second, ready);
  }
  const auto forgotten = forgotten_.find(ready.key);
  return {forgotten == forgotten_.end() ? AckCode::kLater : forgotten->second};
}

LandingTable::Answer LandingTable::land_expected(Region& region,
                                                 Expectation& expectation,
                                                 const Ready& ready) {
  const auto index = static_cast<size_t>(ready.block_index);
  if (ready.block_index < 0 || index >= expectation.block_ids.size() ||
      ready.num_bytes != blocks_.image_bytes || ready.num_bytes > region.memory.slot_bytes) {
    return refuse();
  }
  const int32_t block = expectation.block_ids[index];
  if (block < 0 || expectation.has_landed[index]) {
    return {AckCode::kLanded};
  }
  std::byte* image = region.memory.base + (ready.slot * region.memory.slot_bytes);
  flip_if_due(image);
  std::byte* destination = blocks_.base + (block * blocks_.stride_bytes);
  if (copy_with_checksum(destination, image, ready.num_bytes) != ready.checksum) {
    return refuse();
  }
  expectation.has_landed[index] = true;
  --expectation.num_missing;
  ++counts_.landed_parcels;
  counts_.landed_bytes += ready.num_bytes;
  return {AckCode::kLanded, expectation.num_missing == 0, ready.num_bytes};
}

LandingTable::Answer LandingTable::check_self_test(const Region& region, const Ready& ready) {
  if (ready.num_bytes <= 0 || ready.num_bytes > region.memory.slot_bytes) {
    return refuse();
  }
  const std::byte* image = region.memory.base + (ready.slot * region.memory.slot_bytes);
  if (image_checksum(image, ready.num_bytes) != ready.checksum) {
    return refuse();
  }
  return {AckCode::kLanded};
}

void LandingTable::flip_if_due(std::byte* image) {
  ++num_images_;
  if (num_images_ == faults_.flip) {
    *image ^= std::byte{1};
  }
}

LandingCounts LandingTable::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace tessera
