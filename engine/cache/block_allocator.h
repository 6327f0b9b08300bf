// Which cache blocks are free. A Block is a counted handle that gives its id back when the last
// copy dies. A freed block keeps its content until it is handed out again, so that the prefix cache
// can revive it: a free list is an eviction queue. Blocks may be striped: the block at index b of a
// sequence then has an id with id mod num_stripes == b mod num_stripes. Engine thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera {

class BlockAllocator;

/// Shared ownership of one block of the paged cache. Must not outlive its allocator.
class Block final {
 public:
  Block() noexcept = default;
  ~Block() { reset(); }
  Block(const Block& other) noexcept;
  Block& operator=(const Block& other) noexcept;
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;

  [[nodiscard]] bool is_valid() const noexcept { return allocator_ != nullptr; }
  [[nodiscard]] int32_t id() const noexcept { return id_; }
  void reset() noexcept;

 private:
  friend class BlockAllocator;
  Block(BlockAllocator* allocator, int32_t id) noexcept : allocator_(allocator), id_(id) {}

  BlockAllocator* allocator_ = nullptr;
  int32_t id_ = -1;
};

class BlockAllocator final {
 public:
  explicit BlockAllocator(int32_t num_blocks, int32_t num_stripes = 1);
  ~BlockAllocator();
  BlockAllocator(const BlockAllocator&) = delete;
  BlockAllocator& operator=(const BlockAllocator&) = delete;

  /// A block that nobody holds, for index `block_index` of a sequence, or an invalid handle when
  /// there is none in that stripe. Blocks of no further use come first, then kept ones, the longest
  /// unused first. O(1).
  [[nodiscard]] Block try_allocate(int64_t block_index = 0) noexcept;
  /// Whether blocks for the indices [begin, begin + num_blocks) can be allocated together.
  [[nodiscard]] bool can_allocate(int64_t begin, int64_t num_blocks) const noexcept;
  /// The block `id` with the content it had in `generation`; invalid when it was handed out anew
  /// since. Works on free and on held blocks. O(1).
  [[nodiscard]] Block try_revive(int32_t id, uint64_t generation) noexcept;
  /// When the block is freed it is to be reused after all blocks that were never kept.
  void keep_content(const Block& block) noexcept;
  /// Changes each time the block is handed out by try_allocate().
  [[nodiscard]] uint64_t generation(int32_t id) const noexcept;

  [[nodiscard]] int32_t num_blocks() const noexcept {
    return static_cast<int32_t>(entries_.size()) - num_stripes();
  }
  [[nodiscard]] int32_t num_stripes() const noexcept {
    return static_cast<int32_t>(num_free_in_.size());
  }
  /// Blocks that try_allocate() can still hand out over all stripes, kept content included.
  [[nodiscard]] int32_t num_free() const noexcept { return num_free_; }
  [[nodiscard]] int32_t num_used() const noexcept { return num_blocks() - num_free_; }

 private:
  friend class Block;
  struct Entry {
    int32_t num_holders = 0;
    int32_t previous = 0;  // neighbours in the circular free list; unused while held
    int32_t next = 0;
    bool is_kept = false;
    uint64_t generation = 0;
  };

  void add_holder(int32_t id) noexcept { ++entry(id).num_holders; }
  void remove_holder(int32_t id) noexcept;
  void link_before(int32_t id, int32_t successor) noexcept;
  void unlink(int32_t id) noexcept;
  Entry& entry(int32_t id) noexcept { return entries_[static_cast<size_t>(id)]; }
  [[nodiscard]] int32_t list_head(int32_t stripe) const noexcept { return num_blocks() + stripe; }
  [[nodiscard]] int32_t stripe_of(int64_t id_or_index) const noexcept {
    return static_cast<int32_t>(id_or_index % num_stripes());
  }

  std::vector<Entry> entries_;        // one per block, then the head of each stripe's free list
  std::vector<int32_t> num_free_in_;  // by stripe
  int32_t num_free_ = 0;
};

}  // namespace tessera
