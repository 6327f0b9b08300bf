#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cuda/parity_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::kBlockTokens;
using kernels::LatentColumns;

struct DecodeCase {
  int64_t heads;
  int64_t width;
  int64_t rope;
  std::vector<int32_t> lengths;
  DType dtype = DType::kBFloat16;
};

class AttentionParityTest : public ParityTest {
 protected:
  /// Rows of random numbers in all of a sequence's tokens; NaN elsewhere.
  void fill(const PoisonedCache& cache, const std::vector<int32_t>& table, int64_t length) {
    const kernels::LatentCacheView& view = cache.view();
    const HostTensor latent(DType::kFloat32, random_.array({length, view.latent_width}));
    const HostTensor rope(DType::kFloat32, random_.array({length, view.rope_width}));
    const HostTensor slots(slots_of(table, length));
    cpu().latent_write({.latent = latent.view(),
                        .rope = rope.view(),
                        .slots = slots.view(),
                        .columns = LatentColumns::all(view.latent_width),
                        .cache = view},
                       {});
  }

  void check_decode(const DecodeCase& shape) {
    SCOPED_TRACE(std::to_string(shape.heads) + " heads, width " + std::to_string(shape.width) +
                 ", rope " + std::to_string(shape.rope));
    const auto batch = static_cast<int64_t>(shape.lengths.size());
    const int64_t longest = *std::max_element(shape.lengths.begin(), shape.lengths.end());
    const int64_t max_blocks = (longest + kBlockTokens - 1) / kBlockTokens;
    const auto blocks_of = [](int32_t length) {
      return (length + kBlockTokens - 1) / kBlockTokens;
    };
    const int64_t num_blocks = std::accumulate(
        shape.lengths.begin(), shape.lengths.end(), int64_t{3}, [&](int64_t sum, int32_t length) {
          return sum + blocks_of(length);
        });
    const PoisonedCache cache(shape.dtype, num_blocks, shape.width, shape.rope);
    const std::vector<int32_t> blocks = random_.permutation(num_blocks);
    // Entries behind a sequence's blocks name one of the three that nobody has.
    Array tables({batch, max_blocks});
    std::fill(tables.values.begin(), tables.values.end(), blocks.back());
    auto next = blocks.begin();
    for (int64_t b = 0; b < batch; ++b) {
      const int32_t length = shape.lengths[static_cast<size_t>(b)];
      const auto end = next + blocks_of(length);
      std::copy(next, end, tables.values.begin() + b * max_blocks);
      if (length > 0) {
        fill(cache, {next, end}, length);
      }
      next = end;
    }
    const HostTensor block_tables(DType::kInt32, tables, 1);
    const HostTensor lengths(shape.lengths);
    const HostTensor q_latent(shape.dtype, random_.array({batch, shape.heads, shape.width}));
    const HostTensor q(shape.dtype, random_.array({batch, shape.heads, 128 + shape.rope}));
    HostTensor expected(shape.dtype, {batch, shape.heads, shape.width});
    HostTensor expected_lse(DType::kFloat32, std::vector<int64_t>{batch, shape.heads});
    HostTensor actual = expected;
    HostTensor actual_lse = expected_lse;
    const auto attend = [&](kernels::Ops& ops, HostTensor& out, HostTensor& lse) {
      ops.mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q.view().slice(2, 128, shape.rope),
                      .cache = cache.view(),
                      .block_tables = block_tables.view(),
                      .lengths = lengths.view(),
                      .scale = 0.1147F,
                      .out = out.view(),
                      .log_sum_exp = lse.view()},
                     {});
    };
    attend(cpu(), expected, expected_lse);
    attend(gpu(), actual, actual_lse);
    expect_same(actual, expected, parity_of(shape.dtype));
    expect_same(actual_lse, expected_lse, kFloat32Parity);
  }
};

TEST_F(AttentionParityTest, DecodeOfAnyWidth) {
  for (const int64_t width : {8, 16, 56, 64, 72, 128, 136, 200, 256, 264, 384, 504, 512}) {
    for (const int64_t rope : {32, 64}) {
      check_decode({16, width, rope, {1, 63, 64, 65, 300, 0}});
    }
  }
}

TEST_F(AttentionParityTest, DecodeOfAnyNumberOfHeads) {
  for (const int64_t heads : {1, 5, 16, 17, 32, 64, 65, 128}) {
    for (const int64_t width : {128, 256, 320, 512}) {
      check_decode({heads, width, 64, {200, 7}});
    }
  }
}

TEST_F(AttentionParityTest, DecodeOfALongContextInManyParts) {
  check_decode({16, 512, 64, {9000}});
  check_decode({128, 256, 64, {5000, 64, 0, 4001}});
  check_decode({8, 128, 32, {7777, 1}});
  check_decode({128, 512, 64, {5000, 64, 0, 4001}});
  check_decode({64, 320, 64, {7777, 1, 300}});
}

TEST_F(AttentionParityTest, DecodeOfManySequences) {
  std::vector<int32_t> lengths(150);
  for (int32_t& length : lengths) {
    length = static_cast<int32_t>(random_.index(300));
  }
  lengths[0] = 300;
  check_decode({16, 512, 64, lengths});
  check_decode({16, 256, 64, lengths});
  check_decode({65, 512, 64, lengths});
  check_decode({65, 320, 64, lengths});
}

// As many splits as a thread block merges, and one more.
const std::vector<int32_t> kLengthsOfSomeSplits = {384, 385, 448, 449, 320};

TEST_F(AttentionParityTest, DecodeOfSequencesOfFewAndOfManySplits) {
  for (const int64_t heads : {5, 16, 33, 65, 128}) {
    for (const int64_t width : {56, 128, 256, 320, 512}) {
      check_decode({heads, width, 64, kLengthsOfSomeSplits});
    }
  }
}

TEST_F(AttentionParityTest, DecodeOfLongSequencesAmongManyShortOnes) {
  std::vector<int32_t> lengths(900);
  for (int32_t& length : lengths) {
    length = static_cast<int32_t>(random_.index(131));
  }
  for (const size_t at : {10, 300, 390, 800}) {
    lengths[at] = static_cast<int32_t>(20000 + random_.index(5000));
  }
  check_decode({16, 64, 64, lengths});
  check_decode({128, 64, 32, lengths});
}

struct WindowCase {
  int64_t heads;
  int64_t num_shared;
  kernels::LatentWindow window;
  std::vector<int32_t> lengths;  ///< of sequences
  int64_t row_tokens = 1;
};

/// What lies in the caches does not matter here: both backends find the same.
class WindowParityTest : public ParityTest {
 protected:
  void check(const WindowCase& shape) {
    constexpr int64_t kWhole = 512, kRope = 64;
    constexpr DType kType = DType::kBFloat16;
    const auto batch = static_cast<int64_t>(shape.lengths.size()) * shape.row_tokens;
    const int64_t longest = *std::max_element(shape.lengths.begin(), shape.lengths.end());
    const int64_t max_blocks = (longest + kBlockTokens - 1) / kBlockTokens;
    const auto columns = LatentColumns::of_slice(kWhole, shape.num_shared, 1, 2);
    const auto ring =
        kernels::WindowRing::create(shape.window, std::max<int64_t>(2, shape.row_tokens));
    const auto cache_of = [&](HostTensor& rows, int64_t width) {
      return kernels::LatentCacheView{.base = rows.view().data,
                                      .block_stride_bytes = kBlockTokens * (width + kRope) * 2,
                                      .num_blocks = rows.view().dim(0) / kBlockTokens,
                                      .latent_width = width,
                                      .rope_width = kRope,
                                      .dtype = kType};
    };
    HostTensor paged(kType,
                     random_.array({(max_blocks + 5) * kBlockTokens, columns.width() + kRope}));
    const int64_t ring_blocks = batch * ring.rows_per_sequence() / kBlockTokens + 1;
    HostTensor rings(kType, random_.array({ring_blocks * kBlockTokens, kWhole + kRope}));
    Array tables({batch, max_blocks});
    std::vector<int64_t> first_slots;
    std::vector<int32_t> row_lengths, blocks;
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t sequence = b / shape.row_tokens;
      const auto later = static_cast<int32_t>(shape.row_tokens - 1 - b % shape.row_tokens);
      const int32_t length = shape.lengths[static_cast<size_t>(sequence)];
      row_lengths.push_back(length == 0 ? 0 : length - later);
      blocks = b % shape.row_tokens == 0 ? random_.permutation(max_blocks + 5) : blocks;
      std::copy_n(blocks.begin(), max_blocks, tables.values.begin() + b * max_blocks);
      first_slots.push_back((batch - 1 - sequence) * ring.rows_per_sequence());
    }
    const HostTensor block_tables(DType::kInt32, tables);
    const HostTensor lengths(row_lengths);
    const HostTensor slots(first_slots);
    const HostTensor q_latent(kType, random_.array({batch, shape.heads, columns.width()}));
    const HostTensor q_whole(kType, random_.array({batch, shape.heads, kWhole}));
    const HostTensor q_rope(kType, random_.array({batch, shape.heads, kRope}));
    HostTensor expected(kType, std::vector<int64_t>{batch, shape.heads, columns.width()});
    HostTensor expected_lse(DType::kFloat32, std::vector<int64_t>{batch, shape.heads});
    HostTensor actual = expected;
    HostTensor actual_lse = expected_lse;
    const auto attend = [&](kernels::Ops& ops, HostTensor& out, HostTensor& lse) {
      ops.mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q_rope.view(),
                      .cache = cache_of(paged, columns.width()),
                      .block_tables = block_tables.view(),
                      .lengths = lengths.view(),
                      .scale = 0.0721F,
                      .row_tokens = shape.row_tokens,
                      .window = kernels::DecodeWindow{.cache = cache_of(rings, kWhole),
                                                      .ring = ring,
                                                      .columns = columns,
                                                      .q_latent = q_whole.view(),
                                                      .first_slots = slots.view()},
                      .out = out.view(),
                      .log_sum_exp = lse.view()},
                     {});
    };
    attend(cpu(), expected, expected_lse);
    attend(gpu(), actual, actual_lse);
    expect_same(actual, expected, kBFloat16Parity);
    expect_same(actual_lse, expected_lse, kFloat32Parity);
  }
};

TEST_F(WindowParityTest, FirstAndLastTokens) {
  for (const int64_t num_shared : {0, 64, 128, 8}) {
    check({16, num_shared, {64, 256}, {1, 63, 320, 321, 500, 2000, 0}});
    check({33, num_shared, {4, 100}, {1000, 104, 105}});
  }
}

TEST_F(WindowParityTest, OnlyFirstOrOnlyLastTokens) {
  check({16, 0, {10, 0}, {5, 10, 11, 700}});
  check({64, 0, {0, 77}, {5, 77, 78, 700}});
  check({128, 128, {0, 16}, {5, 77, 80, 81, 700}});
}

TEST_F(WindowParityTest, SeveralQueryTokensOfASequence) {
  check({16, 0, {0, 16}, {4, 17, 64, 80, 81, 500, 0}, 4});
  check({64, 0, {4, 16}, {5, 64, 85, 2000}, 2});
  check({128, 128, {70, 16}, {73, 88, 700}, 3});
}

TEST_F(WindowParityTest, ALongContextInManyParts) {
  check({64, 0, {4, 16}, {9000, 20, 21, 4116}});
  check({128, 0, {100, 16}, {9000, 116, 117}});
}

TEST_F(WindowParityTest, SequencesOfFewAndOfManySplits) {
  for (const int64_t heads : {5, 33, 64}) {
    check({heads, 0, {4, 16}, kLengthsOfSomeSplits});
    check({heads, 128, {4, 16}, kLengthsOfSomeSplits, 2});
    check({heads, 0, {0, 16}, kLengthsOfSomeSplits, 4});
  }
}

TEST_F(WindowParityTest, MoreRowsThanFitTheScratchAtOnce) {
  std::vector<int32_t> lengths(450);
  for (int32_t& length : lengths) {
    length = static_cast<int32_t>(random_.index(100));
  }
  lengths[7] = 100;
  check({128, 0, {4, 30}, lengths});
}

TEST_F(AttentionParityTest, DecodeInFloat32) {
  check_decode({16, 512, 64, {1, 63, 64, 65, 1000, 0}, DType::kFloat32});
  check_decode({33, 200, 32, {2000}, DType::kFloat32});
}

struct PrefillCase {
  int64_t queries;
  int64_t cached;
  int64_t heads;
  int64_t nope = 128;
  int64_t rope = 64;
  int64_t value = 128;
  DType dtype = DType::kBFloat16;
};

class PrefillParityTest : public ParityTest {
 protected:
  void check_prefill(const PrefillCase& shape, int64_t tile) {
    SCOPED_TRACE(std::to_string(shape.queries) + " queries after " + std::to_string(shape.cached) +
                 ", tiles of " + std::to_string(tile));
    const int64_t keys = shape.cached + shape.queries;
    const HostTensor q(shape.dtype,
                       random_.array({shape.queries, shape.heads, shape.nope + shape.rope}));
    const HostTensor kv(shape.dtype, random_.array({keys, shape.heads, shape.nope + shape.value}));
    const HostTensor k_rope(shape.dtype, random_.array({keys, shape.rope}));
    const std::vector<int64_t> dims = {shape.queries, shape.heads, shape.value};
    const auto attend = [&](kernels::Ops& ops) {
      HostTensor accumulator(DType::kFloat32, dims);
      HostTensor max_logit(DType::kFloat32, std::vector<int64_t>{dims[0], dims[1]});
      HostTensor sum(DType::kFloat32, std::vector<int64_t>{dims[0], dims[1]});
      HostTensor out(shape.dtype, dims);
      for (int64_t begin = 0; begin < keys; begin += tile) {
        const int64_t count = std::min(tile, keys - begin);
        ops.mla_prefill({.q = q.view(),
                         .kv = kv.view().slice(0, begin, count),
                         .k_rope = k_rope.view().slice(0, begin, count),
                         .query_begin = shape.cached,
                         .key_begin = begin,
                         .scale = 0.0721F,
                         .is_first_tile = begin == 0,
                         .is_last_tile = begin + count == keys,
                         .accumulator = accumulator.view(),
                         .max_logit = max_logit.view(),
                         .sum = sum.view(),
                         .out = out.view()},
                        {});
      }
      return out;
    };
    const HostTensor expected = attend(cpu());
    expect_same(attend(gpu()), expected, parity_of(shape.dtype));
  }
};

TEST_F(PrefillParityTest, WholePromptsOfAnyLength) {
  for (const int64_t queries : {1, 15, 16, 63, 64, 65, 127, 128, 129, 300}) {
    check_prefill({queries, 0, 3}, 4096);
  }
}

TEST_F(PrefillParityTest, ChunksBehindACachedPrefix) {
  check_prefill({100, 333, 2}, 4096);
  check_prefill({1, 1000, 2}, 4096);
  check_prefill({257, 64, 2}, 4096);
}

TEST_F(PrefillParityTest, KeysInTiles) {
  check_prefill({300, 100, 2}, 128);
  check_prefill({300, 0, 2}, 37);
  check_prefill({200, 150, 2}, 64);
}

TEST_F(PrefillParityTest, MoreHeadsThanAreWorkedOnAtATime) {
  check_prefill({290, 0, 19}, 4096);
  check_prefill({130, 70, 9}, 128);
}

TEST_F(PrefillParityTest, OtherHeadsAndFloat32) {
  check_prefill({100, 50, 3, 32, 16, 40}, 64);
  check_prefill({100, 50, 2, 128, 64, 128, DType::kFloat32}, 4096);
  check_prefill({65, 7, 3, 24, 8, 20, DType::kFloat32}, 32);
}

}  // namespace
}  // namespace tessera::testing
