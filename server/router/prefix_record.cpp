#include "server/router/prefix_record.h"

#include <algorithm>
#include <cstring>

#include <openssl/sha.h>

namespace tessera::router {

std::vector<BlockHash> hash_blocks(std::span<const int32_t> ids, const BlockHash& salt) {
  struct Message {
    BlockHash parent;
    std::array<int32_t, kPrefixBlockTokens> ids;
  };
  static_assert(sizeof(Message) == sizeof(BlockHash) + sizeof(int32_t) * kPrefixBlockTokens);
  const size_t num_blocks = ids.size() / kPrefixBlockTokens;
  std::vector<BlockHash> chain;
  chain.reserve(num_blocks);
  Message message{salt, {}};
  for (size_t i = 0; i < num_blocks; ++i) {
    const auto block = ids.subspan(i * kPrefixBlockTokens, kPrefixBlockTokens);
    std::copy(block.begin(), block.end(), message.ids.begin());
    std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
    SHA256(reinterpret_cast<const unsigned char*>(&message), sizeof(message), digest.data());
    std::memcpy(&message.parent, digest.data(), sizeof(message.parent));
    chain.push_back(message.parent);
  }
  return chain;
}

bool PrefixRecord::has(const Entry& entry, WorkerId worker) {
  return std::find(entry.workers.begin(), entry.workers.end(), worker) != entry.workers.end();
}

void PrefixRecord::add(Entry& entry, WorkerId worker) {
  auto place = std::find(entry.workers.begin(), entry.workers.end(), worker);
  if (place == entry.workers.end()) {
    --place;  // the oldest goes
    *place = worker;
  }
  std::rotate(entry.workers.begin(), place, place + 1);
}

void PrefixRecord::note(std::span<const BlockHash> chain, WorkerId worker) {
  // What the bound cannot hold is not worth a walk; the last block first, so that a chain's head
  // is used last and outlives its tail.
  const auto num_blocks = std::min(chain.size(), static_cast<size_t>(max_blocks_));
  for (size_t i = num_blocks; i > 0; --i) {
    const BlockHash& hash = chain[i - 1];
    const auto found = by_hash_.find(hash);
    if (found == by_hash_.end()) {
      by_use_.push_front({hash, {}});
      by_hash_.emplace(hash, by_use_.begin());
    } else {
      by_use_.splice(by_use_.begin(), by_use_, found->second);
    }
    add(by_use_.front(), worker);
  }
  while (size() > max_blocks_) {
    by_hash_.erase(by_use_.back().hash);
    by_use_.pop_back();
  }
}

std::vector<PrefixRecord::Match> PrefixRecord::match(std::span<const BlockHash> chain) const {
  std::vector<Match> matches;
  for (size_t i = 0; i < chain.size(); ++i) {
    const auto found = by_hash_.find(chain[i]);
    if (found == by_hash_.end()) {
      break;
    }
    if (i == 0) {
      matches = holders(*found->second);
    } else if (!extend(*found->second, static_cast<int64_t>(i), matches)) {
      break;
    }
  }
  return matches;
}

std::vector<PrefixRecord::Match> PrefixRecord::holders(const Entry& entry) {
  std::vector<Match> matches;
  for (const WorkerId worker : entry.workers) {
    if (worker != 0) {
      matches.push_back({worker, 1});
    }
  }
  return matches;
}

/// False when no match of `num_blocks` goes on with this entry.
bool PrefixRecord::extend(const Entry& entry, int64_t num_blocks, std::vector<Match>& matches) {
  bool has_any = false;
  for (Match& match : matches) {
    if (match.num_blocks == num_blocks && has(entry, match.worker)) {
      ++match.num_blocks;
      has_any = true;
    }
  }
  return has_any;
}

}  // namespace tessera::router
