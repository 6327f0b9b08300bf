// Random token ids and lengths that depend on a seed and a place only.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "server/bench/settings.h"

namespace tessera::bench {

/// What a generator is for: streams of different purposes do not repeat each other.
enum class Purpose : uint32_t { kPrompt, kPrefix, kBlock, kLengths, kCancel, kArrivals };

[[nodiscard]] std::mt19937_64 make_random(uint64_t seed, Purpose purpose, int64_t place);

/// Appends `count` ids in [first_token_id, end_token_id).
void append_tokens(const DataSettings& settings,
                   std::mt19937_64& random,
                   int64_t count,
                   std::vector<int32_t>& out);

/// Uniform in [(1 - range) mean, (1 + range) mean], at least 1.
[[nodiscard]] int64_t random_length(int64_t mean, double range, std::mt19937_64& random);

}  // namespace tessera::bench
