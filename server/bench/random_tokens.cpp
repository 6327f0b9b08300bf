#include "server/bench/random_tokens.h"

#include <algorithm>
#include <cmath>

namespace tessera::bench {

std::mt19937_64 make_random(uint64_t seed, Purpose purpose, int64_t place) {
  const auto bits = static_cast<uint64_t>(place);
  std::seed_seq sequence{static_cast<uint32_t>(seed),
                         static_cast<uint32_t>(seed >> 32U),
                         static_cast<uint32_t>(purpose),
                         static_cast<uint32_t>(bits),
                         static_cast<uint32_t>(bits >> 32U)};
  return std::mt19937_64(sequence);
}

void append_tokens(const DataSettings& settings,
                   std::mt19937_64& random,
                   int64_t count,
                   std::vector<int32_t>& out) {
  std::uniform_int_distribution<int32_t> token(settings.first_token_id, settings.end_token_id - 1);
  out.reserve(out.size() + static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    out.push_back(token(random));
  }
}

int64_t random_length(int64_t mean, double range, std::mt19937_64& random) {
  const double half = range * static_cast<double>(mean);
  const auto low = static_cast<int64_t>(std::ceil(static_cast<double>(mean) - half));
  const auto high = static_cast<int64_t>(std::floor(static_cast<double>(mean) + half));
  std::uniform_int_distribution<int64_t> length(std::max<int64_t>(low, 1),
                                                std::max<int64_t>(high, 1));
  return length(random);
}

}  // namespace tessera::bench
