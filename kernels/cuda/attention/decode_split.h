// How a step's decode attention is shared out over a fixed number of workers: all sequences' cache
// blocks, back to back, are cut into parts of equal cost (but the last). A sequence that is cut has
// several splits. Arithmetic on the sum of costs before a sequence, so that every worker finds its
// part by itself, from the lengths alone.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tessera::kernels::cuda {

/// Blocks [begin, end) of one sequence.
struct BlockRange {
  int begin = 0;
  int end = 0;
};

/// The parts that one sequence is in.
struct Splits {
  int first_part = 0;
  int count = 1;
};

struct DecodeSplit {
  /// Blocks that a sequence costs besides its own: queries to load, results to write.
  static constexpr int kSequenceCost = 4;

  /// Parts of this cost or more are cut to a block; shorter ones all cost what the largest must,
  /// which leaves short sequences of equal lengths whole where there are nearly as many of them as
  /// parts.
  static constexpr int kLongPart = 64;

  /// Splits of a sequence up to which the worker with its first blocks merges them. More are merged
  /// by a kernel of its own, which has more workers for that.
  static constexpr int kFewSplits = 6;
  /// Sequences with more splits that there can be: each has so many parts for itself.
  [[nodiscard]] static constexpr int max_many_splits(int num_parts) noexcept {
    return num_parts / (kFewSplits - 1);
  }

  int num_parts = 1;   ///< that have work
  int total_cost = 1;  ///< of all parts: up to 2^31 / num_parts
  int numerator = 1;   ///< of a part's cost
  int denominator = 1;

  [[nodiscard]] static constexpr int cost(int num_blocks) noexcept {
    return num_blocks + kSequenceCost;
  }
  [[nodiscard]] static constexpr DecodeSplit create(int total_cost, int num_parts) noexcept {
    const int total = std::max(1, total_cost);
    if (total / num_parts >= kLongPart) {
      return {num_parts, total, total, num_parts};
    }
    const int share = (total + num_parts - 1) / num_parts;
    return {(total + share - 1) / share, total, share, 1};
  }

  /// The cost before a part.
  [[nodiscard]] constexpr int begin(int part) const noexcept {
    return std::min(
        total_cost,
        static_cast<int>(static_cast<unsigned>(numerator) * static_cast<unsigned>(part) /
                         static_cast<unsigned>(denominator)));
  }

  // `before`: the cost of the sequences before this one.

  /// The part with a sequence's first block; of a sequence without blocks, the one that writes its
  /// result.
  [[nodiscard]] constexpr int first_part(int before) const noexcept {
    return std::min(part_at(before + kSequenceCost), num_parts - 1);
  }
  /// The part with its last block.
  [[nodiscard]] constexpr int last_part(int before, int num_blocks) const noexcept {
    return num_blocks == 0 ? first_part(before) : part_at(before + kSequenceCost + num_blocks - 1);
  }
  [[nodiscard]] constexpr Splits splits(int before, int num_blocks) const noexcept {
    const int first = first_part(before);
    return {first, last_part(before, num_blocks) - first + 1};
  }
  /// What part `part` has of it.
  [[nodiscard]] constexpr BlockRange blocks(int part, int before, int num_blocks) const noexcept {
    if (part >= num_parts) {
      return {};
    }
    const int first = before + kSequenceCost;
    return {std::clamp(begin(part) - first, 0, num_blocks),
            std::clamp(begin(part + 1) - first, 0, num_blocks)};
  }
  /// Where the partial result of a sequence that is cut stands: no two (part, sequence) share one,
  /// and the splits of a sequence follow each other.
  [[nodiscard]] static constexpr int64_t partial(int part, int sequence) noexcept {
    return int64_t{part} + sequence;
  }

 private:
  /// The last part that begins at a cost or before it.
  [[nodiscard]] constexpr int part_at(int cost) const noexcept {
    return static_cast<int>(
        (static_cast<unsigned>(cost + 1) * static_cast<unsigned>(denominator) - 1) /
        static_cast<unsigned>(numerator));
  }
};

}  // namespace tessera::kernels::cuda
