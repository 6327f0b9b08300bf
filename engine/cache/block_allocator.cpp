#include "engine/cache/block_allocator.h"

#include <utility>

#include "engine/base/check.h"

namespace tessera {

Block::Block(const Block& other) noexcept : allocator_(other.allocator_), id_(other.id_) {
  if (allocator_ != nullptr) {
    allocator_->add_holder(id_);
  }
}

Block& Block::operator=(const Block& other) noexcept {
  Block copy(other);
  std::swap(allocator_, copy.allocator_);
  std::swap(id_, copy.id_);
  return *this;
}

Block::Block(Block&& other) noexcept
    : allocator_(std::exchange(other.allocator_, nullptr)), id_(std::exchange(other.id_, -1)) {}

Block& Block::operator=(Block&& other) noexcept {
  Block moved(std::move(other));
  std::swap(allocator_, moved.allocator_);
  std::swap(id_, moved.id_);
  return *this;
}

void Block::reset() noexcept {
  if (allocator_ != nullptr) {
    std::exchange(allocator_, nullptr)->remove_holder(std::exchange(id_, -1));
  }
}

BlockAllocator::BlockAllocator(int32_t num_blocks, int32_t num_stripes) {
  TESSERA_CHECK(num_blocks >= 0, "a cache has no negative number of blocks");
  TESSERA_CHECK(num_stripes >= 1, "a cache has a stripe");
  num_free_in_.resize(static_cast<size_t>(num_stripes));
  entries_.resize(static_cast<size_t>(num_blocks) + num_free_in_.size());
  for (int32_t stripe = 0; stripe < num_stripes; ++stripe) {
    const int32_t head = list_head(stripe);
    entry(head) = {.previous = head, .next = head};
  }
  for (int32_t id = 0; id < num_blocks; ++id) {
    link_before(id, list_head(stripe_of(id)));
    ++num_free_in_[static_cast<size_t>(stripe_of(id))];
  }
  num_free_ = num_blocks;
}

BlockAllocator::~BlockAllocator() {
  TESSERA_DCHECK(num_used() == 0, "a Block outlives its allocator");
}

Block BlockAllocator::try_allocate(int64_t block_index) noexcept {
  const int32_t stripe = stripe_of(block_index);
  if (num_free_in_[static_cast<size_t>(stripe)] == 0) {
    return {};
  }
  const int32_t id = entry(list_head(stripe)).next;
  unlink(id);
  Entry& taken = entry(id);
  taken.num_holders = 1;
  taken.is_kept = false;
  ++taken.generation;
  return {this, id};
}

bool BlockAllocator::can_allocate(int64_t begin, int64_t num_blocks) const noexcept {
  const int32_t num_stripes = this->num_stripes();
  for (int32_t i = 0; i < num_stripes; ++i) {
    // Of num_blocks consecutive indices, those that lie in the stripe of index begin + i.
    const int64_t num_needed = (num_blocks - i + num_stripes - 1) / num_stripes;
    if (num_needed > num_free_in_[static_cast<size_t>(stripe_of(begin + i))]) {
      return false;
    }
  }
  return true;
}

Block BlockAllocator::try_revive(int32_t id, uint64_t generation) noexcept {
  Entry& wanted = entry(id);
  if (wanted.generation != generation) {
    return {};
  }
  if (wanted.num_holders == 0) {
    unlink(id);
  }
  ++wanted.num_holders;
  return {this, id};
}

void BlockAllocator::keep_content(const Block& block) noexcept {
  entry(block.id()).is_kept = true;
}

uint64_t BlockAllocator::generation(int32_t id) const noexcept {
  return entries_[static_cast<size_t>(id)].generation;
}

void BlockAllocator::remove_holder(int32_t id) noexcept {
  Entry& released = entry(id);
  if (--released.num_holders > 0) {
    return;
  }
  const int32_t head = list_head(stripe_of(id));
  link_before(id, released.is_kept ? head : entry(head).next);
  ++num_free_in_[static_cast<size_t>(stripe_of(id))];
  ++num_free_;
}

void BlockAllocator::link_before(int32_t id, int32_t successor) noexcept {
  const int32_t previous = entry(successor).previous;
  entry(id).previous = previous;
  entry(id).next = successor;
  entry(previous).next = id;
  entry(successor).previous = id;
}

void BlockAllocator::unlink(int32_t id) noexcept {
  const Entry& removed = entry(id);
  entry(removed.previous).next = removed.next;
  entry(removed.next).previous = removed.previous;
  --num_free_in_[static_cast<size_t>(stripe_of(id))];
  --num_free_;
}

}  // namespace tessera
