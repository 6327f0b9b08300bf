// How a step's decode attention is shared out over a fixed number of workers: all sequences' cache
// blocks, back to back, are cut into parts of equal cost. A sequence that is cut has several
// splits. Arithmetic on the sum of costs before a sequence, so that every worker finds its part by
// itself, from the lengths alone.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tessera::kernels::cuda {

/// Blocks [begin, end) of one sequence.
struct BlockRange {
  int begin = 0;
  int end = 0;
};

struct DecodeSplit {
  /// Blocks that a sequence costs besides its own: queries to load, results to write.
  static constexpr int kSequenceCost = 4;

  int num_parts = 1;
  int share = 1;  ///< cost of a part

  [[nodiscard]] static constexpr int cost(int num_blocks) noexcept {
    return num_blocks + kSequenceCost;
  }
  [[nodiscard]] static constexpr DecodeSplit create(int total_cost, int num_parts) noexcept {
    return {num_parts, std::max(1, (total_cost + num_parts - 1) / num_parts)};
  }

  // `before`: the cost of the sequences before this one.

  /// The part with a sequence's first block; of a sequence without blocks, the one that writes its
  /// result.
  [[nodiscard]] constexpr int first_part(int before) const noexcept {
    return std::min((before + kSequenceCost) / share, num_parts - 1);
  }
  /// The part with its last block.
  [[nodiscard]] constexpr int last_part(int before, int num_blocks) const noexcept {
    return num_blocks == 0 ? first_part(before) : (before + kSequenceCost + num_blocks - 1) / share;
  }
  /// What part `part` has of it.
  [[nodiscard]] constexpr BlockRange blocks(int part, int before, int num_blocks) const noexcept {
    const int offset = part * share - before - kSequenceCost;
    return {std::clamp(offset, 0, num_blocks), std::clamp(offset + share, 0, num_blocks)};
  }
  /// Where the partial result of a sequence that is cut stands: no two (part, sequence) share one,
  /// and the splits of a sequence follow each other.
  [[nodiscard]] static constexpr int64_t partial(int part, int sequence) noexcept {
    return int64_t{part} + sequence;
  }
};

}  // namespace tessera::kernels::cuda
