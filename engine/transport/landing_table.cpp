#include "engine/transport/landing_table.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/transport/checksum.h"

namespace tessera {

LandingTable::LandingTable(const CacheBlocks& blocks,
                           TransportFaults faults,
                           kernels::ImageMover* mover)
    : blocks_(blocks), faults_(faults), mover_(mover) {
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

std::vector<LandingTable::Answer> LandingTable::land(uint64_t connection,
                                                     std::span<const Ready> batch) {
  std::vector<Answer> answers;
  answers.reserve(batch.size());
  while (answers.size() < batch.size()) {
    const std::lock_guard lock(mutex_);
    land_some(connection, batch.subspan(answers.size()), answers);
  }
  return answers;
}

/// As many from the front as can be copied together.
void LandingTable::land_some(uint64_t connection,
                             std::span<const Ready> batch,
                             std::vector<Answer>& answers) {
  const auto found = regions_.find(connection);
  if (found == regions_.end()) {
    answers.resize(answers.size() + batch.size(), {AckCode::kDropped});
    return;
  }
  std::vector<Landing> landings;
  for (const Ready& ready : batch) {
    Landing landing{.ready = &ready, .answer = answers.size()};
    const Answer answer = look_at(found->second, connection, landing);
    const bool is_to_copy = landing.image.source != nullptr;
    if (is_to_copy && !can_join(landing, landings)) {
      break;
    }
    if (is_to_copy) {
      landings.push_back(landing);
    }
    answers.push_back(answer);
  }
  const std::vector<uint64_t> checksums = move(landings);
  for (size_t i = 0; i < landings.size(); ++i) {
    answers[landings[i].answer] = finish(found->second, landings[i], checksums[i]);
  }
}

/// Not the same slot, nor another image of a block: those are looked at again when that has landed.
bool LandingTable::can_join(const Landing& landing, std::span<const Landing> landings) const {
  const auto max_landings = static_cast<size_t>(mover_ == nullptr ? 1 : mover_->max_images());
  const kernels::ImageMover::Image& image = landing.image;
  return landings.size() < max_landings &&
         std::none_of(landings.begin(), landings.end(), [&image](const Landing& other) {
           return other.image.source == image.source ||
                  (image.destination != nullptr && other.image.destination == image.destination);
         });
}

/// Gives the landing an image when it is to be copied; else the answer is final.
LandingTable::Answer LandingTable::look_at(Region& region, uint64_t connection, Landing& landing) {
  const Ready& ready = *landing.ready;
  if (ready.slot < 0 || ready.slot >= region.memory.num_slots) {
    return refuse();
  }
  Slot& slot = region.slots[static_cast<size_t>(ready.slot)];
  if (ready.generation <= slot.generation) {
    return {ready.generation == slot.generation ? slot.code : AckCode::kDropped};
  }
  landing.image.num_bytes = ready.num_bytes;
  const Answer answer = look_up(region, connection, landing);
  if (landing.image.source == nullptr && answer.code != AckCode::kLater) {
    slot = {ready.generation, answer.code};
  }
  return answer;
}

LandingTable::Answer LandingTable::look_up(const Region& region,
                                           uint64_t connection,
                                           Landing& landing) {
  const Ready& ready = *landing.ready;
  const std::byte* image = region.memory.base + (ready.slot * region.memory.slot_bytes);
  if (ready.num_bytes <= 0 || ready.num_bytes > region.memory.slot_bytes) {
    return refuse();
  }
  if (ready.key == kSelfTestKey) {
    landing.image.source = image;
    return {};
  }
  const auto expected = expectations_.find(ready.key);
  if (expected == expectations_.end() || expected->second.connection != connection) {
    const auto forgotten = forgotten_.find(ready.key);
    return {forgotten == forgotten_.end() ? AckCode::kLater : forgotten->second};
  }
  Expectation& expectation = expected->second;
  const auto index = static_cast<size_t>(ready.block_index);
  if (ready.block_index < 0 || index >= expectation.block_ids.size() ||
      ready.num_bytes != blocks_.image_bytes) {
    return refuse();
  }
  const int32_t block = expectation.block_ids[index];
  if (block >= 0 && !expectation.has_landed[index]) {
    landing.expectation = &expectation;
    landing.image.source = image;
    landing.image.destination = blocks_.base + (block * blocks_.stride_bytes);
  }
  return {AckCode::kLanded};
}

std::vector<uint64_t> LandingTable::move(std::span<const Landing> landings) {
  std::vector<kernels::ImageMover::Image> images;
  std::vector<uint64_t> checksums;
  for (const Landing& landing : landings) {
    const kernels::ImageMover::Image& image = landing.image;
    if (landing.expectation != nullptr) {
      flip_if_due(image.source);
    }
    if (mover_ != nullptr) {
      images.push_back(image);
    } else if (image.destination == nullptr) {
      checksums.push_back(image_checksum(image.source, image.num_bytes));
    } else {
      checksums.push_back(copy_with_checksum(image.destination, image.source, image.num_bytes));
    }
  }
  if (!images.empty()) {
    mover_->see_remote_writes();
    return mover_->finish_blocking(mover_->begin(images));
  }
  return checksums;
}

LandingTable::Answer LandingTable::finish(Region& region,
                                          const Landing& landing,
                                          uint64_t checksum) {
  const Ready& ready = *landing.ready;
  const bool has_landed = checksum == ready.checksum;
  Slot& slot = region.slots[static_cast<size_t>(ready.slot)];
  if (slot.generation < ready.generation) {
    slot = {ready.generation, has_landed ? AckCode::kLanded : AckCode::kDamaged};
  }
  if (!has_landed) {
    return refuse();
  }
  if (landing.expectation == nullptr) {
    return {AckCode::kLanded};
  }
  Expectation& expectation = *landing.expectation;
  expectation.has_landed[static_cast<size_t>(ready.block_index)] = true;
  --expectation.num_missing;
  ++counts_.landed_parcels;
  counts_.landed_bytes += ready.num_bytes;
  return {AckCode::kLanded, expectation.num_missing == 0, ready.num_bytes};
}

void LandingTable::flip_if_due(const void* image) {
  ++num_images_;
  if (num_images_ != faults_.flip) {
    return;
  }
  // The landing region's memory is ours to write.
  auto* byte = const_cast<std::byte*>(static_cast<const std::byte*>(image));
  if (mover_ == nullptr) {
    *byte ^= std::byte{1};
    return;
  }
  std::byte value{};
  mover_->read_blocking(&value, byte, 1);
  value ^= std::byte{1};
  mover_->write_blocking(byte, &value, 1);
}

LandingTable::Answer LandingTable::refuse() {
  ++counts_.refused_parcels;
  return {AckCode::kDamaged};
}

LandingCounts LandingTable::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace tessera
