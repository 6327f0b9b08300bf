// Which worker has seen which prefix, as far as this router knows: a bounded guess that makes good
// choices likelier, never a promise. A record of one router only; others keep their own.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tessera::router {

/// One life of one worker, numbered by the router; a worker that comes back gets a new number.
using WorkerId = uint64_t;

constexpr int64_t kPrefixBlockTokens = 64;

/// Names a block of 64 tokens together with everything before it.
struct BlockHash {
  uint64_t high = 0;
  uint64_t low = 0;
  friend auto operator<=>(const BlockHash&, const BlockHash&) = default;
};

/// Hashes of the whole blocks of `ids`: SHA-256 cut to 128 bits over (parent, ids), the first
/// parent being `salt`.
[[nodiscard]] std::vector<BlockHash> hash_blocks(std::span<const int32_t> ids,
                                                 const BlockHash& salt);

/// Router thread only.
class PrefixRecord final {
 public:
  struct Match {
    WorkerId worker = 0;
    int64_t num_blocks = 0;
  };

  explicit PrefixRecord(int64_t max_blocks) : max_blocks_(max_blocks) {}

  /// `worker` holds, or is about to hold, these blocks. Forgets the least recently noted ones above
  /// the bound, ends of chains first.
  void note(std::span<const BlockHash> chain, WorkerId worker);
  /// The workers known to have seen the first block, and how many leading blocks each has seen.
  [[nodiscard]] std::vector<Match> match(std::span<const BlockHash> chain) const;
  [[nodiscard]] int64_t size() const noexcept { return static_cast<int64_t>(by_hash_.size()); }

 private:
  static constexpr size_t kMaxWorkers = 8;  // per block, newest first
  struct Entry {
    BlockHash hash;
    std::array<WorkerId, kMaxWorkers> workers{};
  };
  struct Hasher {
    size_t operator()(const BlockHash& hash) const noexcept { return hash.low; }
  };

  [[nodiscard]] static bool has(const Entry& entry, WorkerId worker);
  static void add(Entry& entry, WorkerId worker);
  [[nodiscard]] static std::vector<Match> holders(const Entry& entry);
  [[nodiscard]] static bool extend(const Entry& entry,
                                   int64_t num_blocks,
                                   std::vector<Match>& matches);

  const int64_t max_blocks_;
  std::list<Entry> by_use_;  // newest first
  std::unordered_map<BlockHash, std::list<Entry>::iterator, Hasher> by_hash_;
};

}  // namespace tessera::router
