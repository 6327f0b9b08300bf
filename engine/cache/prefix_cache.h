// Finds full blocks that hold the same tokens after the same prefix. It keeps no block alive: it
// remembers (block, generation), and the allocator says whether the content is still there; so what
// nobody holds is evicted by being handed out again, longest unused first. Engine thread only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/cache/block_allocator.h"
#include "engine/cache/block_table.h"
#include "engine/cache/latent_layout.h"

struct evp_md_ctx_st;

namespace tessera {

/// Names a block's tokens and everything before them: SHA-256 cut to 128 bits over
/// (salt, parent's hash, token ids); a first block's parent is all zeros.
struct BlockHash {
  std::array<uint64_t, 2> words{};
  friend bool operator==(const BlockHash&, const BlockHash&) = default;
};

class PrefixCache final {
 public:
  /// `salt`: caches of different fingerprints share no hash. `allocator` outlives the cache.
  PrefixCache(BlockAllocator& allocator, std::string_view salt);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  /// `ids`: the kBlockTokens tokens of a full block.
  [[nodiscard]] BlockHash hash(const BlockHash& parent, std::span<const int32_t> ids);
  /// The block that holds `ids` after the prefix of `hash`, or an invalid handle. Compares the ids.
  [[nodiscard]] Block find(const BlockHash& hash, std::span<const int32_t> ids);
  /// Appends the blocks of the longest cached prefix of `ids`, whole blocks, to the empty `table`.
  void take_prefix(std::span<const int32_t> ids, BlockTable& table);
  /// Publishes a block whose tokens are all computed. No effect when a live block has this hash.
  void insert(const BlockHash& hash, std::span<const int32_t> ids, const Block& block);

  /// Entries, those whose content is gone included; at most the number of blocks.
  [[nodiscard]] size_t num_entries() const noexcept { return entries_.size(); }

 private:
  struct HashOfHash {
    size_t operator()(const BlockHash& hash) const noexcept { return hash.words[0]; }
  };
  struct Published {
    BlockHash hash;
    uint64_t generation = 0;  // of the block when published; 0: never
    std::array<int32_t, kBlockTokens> ids{};
  };
  struct DigestDeleter {
    void operator()(evp_md_ctx_st* context) const noexcept;
  };

  BlockAllocator& allocator_;
  std::array<unsigned char, 32> salt_digest_{};
  std::unique_ptr<evp_md_ctx_st, DigestDeleter> digest_;
  std::vector<Published> published_;                            // by block id
  std::unordered_map<BlockHash, int32_t, HashOfHash> entries_;  // to block id
};

}  // namespace tessera
