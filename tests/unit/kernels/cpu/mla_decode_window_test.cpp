// Decode attention with an exact window: its tokens' logits come from whole latents in a ring, one
// softmax runs over them and the paged rest.

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/reference_ops.h"
#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::LatentColumns;
using kernels::LatentWindow;
using kernels::WindowRing;

constexpr float kScale = 0.1F;

struct Shape {
  LatentWindow window;
  int64_t step_rows = 1;  ///< ring_rows above num_last, plus one
  DType dtype = DType::kFloat32;
  int64_t num_heads = 3;
  int64_t width = 28;  ///< R
  int64_t num_shared = 4;
  int64_t num_slices = 2;
  int64_t slice = 1;
  int64_t rope = 6;
  int64_t padding = 1;  ///< columns behind a row of queries or results, a multiple of it

  /// Rows as tensor cores can take them, which round weights to bfloat16.
  [[nodiscard]] bool is_aligned() const { return padding % 8 == 0 && rope % 8 == 0; }
  [[nodiscard]] LatentColumns columns() const {
    return LatentColumns::of_slice(width, num_shared, slice, num_slices);
  }
};

Array without_first_axis(Array array) {
  array.shape.erase(array.shape.begin());
  return array;
}

class MlaDecodeWindowTest : public CpuOpsTest {
 protected:
  /// What the ranks keep of one sequence, as the cache's type rounds it.
  struct Sequence {
    Array latent;  ///< [n, R]
    Array rope;    ///< [n, dr]
  };

  /// One batch over paged rows of a slice and rings of whole rows. Whatever decode has no business
  /// with is NaN: in the paged cache the window's tokens, in the ring everything else.
  void check(const std::vector<int32_t>& lengths, const Shape& shape) {
    const auto batch = static_cast<int64_t>(lengths.size());
    const int64_t max_blocks =
        *std::max_element(lengths.begin(), lengths.end()) / kernels::kBlockTokens + 1;
    const LatentColumns columns = shape.columns();
    const WindowRing ring = WindowRing::create(shape.window, shape.step_rows);
    const int64_t num_blocks = batch * max_blocks + 1;
    const PoisonedCache paged(shape.dtype, num_blocks, columns.width(), shape.rope);
    constexpr int64_t kFirstSlot = 3;
    const int64_t ring_blocks =
        (kFirstSlot + batch * ring.rows_per_sequence()) / kernels::kBlockTokens + 1;
    HostTensor ring_rows(
        shape.dtype,
        std::vector<int64_t>{ring_blocks * kernels::kBlockTokens, shape.width + shape.rope});
    const kernels::LatentCacheView rings{
        .base = ring_rows.view().data,
        .block_stride_bytes =
            kernels::kBlockTokens * (shape.width + shape.rope) * kernels::dtype_bytes(shape.dtype),
        .num_blocks = ring_blocks,
        .latent_width = shape.width,
        .rope_width = shape.rope,
        .dtype = shape.dtype};

    const std::vector<int32_t> blocks = random_.permutation(num_blocks);
    Array tables({batch, max_blocks});
    std::vector<int64_t> first_slots;
    std::vector<Sequence> sequences;
    for (int64_t b = 0; b < batch; ++b) {
      const auto first = blocks.begin() + b * max_blocks;
      std::copy_n(first, max_blocks, tables.values.begin() + b * max_blocks);
      first_slots.push_back(kFirstSlot + (batch - 1 - b) * ring.rows_per_sequence());
      const int64_t length = lengths[static_cast<size_t>(b)];
      const Sequence& sequence = sequences.emplace_back(random_sequence(shape, length));
      std::vector<int64_t> paged_slots = slots_of({first, first + max_blocks}, length);
      std::vector<int64_t> window_slots;
      for (int64_t position = 0; position < length; ++position) {
        const bool is_inside = shape.window.contains(position, length);
        window_slots.push_back(is_inside ? first_slots.back() + ring.row(position) : -1);
        paged_slots[static_cast<size_t>(position)] =
            is_inside ? -1 : paged_slots[static_cast<size_t>(position)];
      }
      write(sequence, paged_slots, columns, paged.view());
      write(sequence, window_slots, LatentColumns::all(shape.width), rings);
    }

    // Queries of a slice are no part of the whole one: keys may be fitted or scaled.
    const HostTensor q_latent(
        shape.dtype, random_.array({batch, shape.num_heads, columns.width()}), 2 * shape.padding);
    const HostTensor q_whole(
        shape.dtype, random_.array({batch, shape.num_heads, shape.width}), 3 * shape.padding);
    const HostTensor q_rope(
        shape.dtype, random_.array({batch, shape.num_heads, shape.rope}), 5 * shape.padding);
    const HostTensor block_tables(DType::kInt32, tables, 4);
    const HostTensor length(lengths);
    const HostTensor first_slot(first_slots);
    HostTensor out(
        shape.dtype, std::vector<int64_t>{batch, shape.num_heads, columns.width()}, shape.padding);
    HostTensor lse(DType::kFloat32, std::vector<int64_t>{batch, shape.num_heads});
    ops().mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q_rope.view(),
                      .cache = paged.view(),
                      .block_tables = block_tables.view(),
                      .lengths = length.view(),
                      .scale = kScale,
                      .window = kernels::DecodeWindow{.cache = rings,
                                                      .ring = ring,
                                                      .columns = columns,
                                                      .q_latent = q_whole.view(),
                                                      .first_slots = first_slot.view()},
                      .out = out.view(),
                      .log_sum_exp = lse.view()},
                     {});
    EXPECT_TRUE(out.is_padding_untouched());
    for (int64_t b = 0; b < batch; ++b) {
      SCOPED_TRACE("length " + std::to_string(lengths[static_cast<size_t>(b)]));
      const Sequence& sequence = sequences[static_cast<size_t>(b)];
      const auto row_of = [b](const HostTensor& tensor) {
        return without_first_axis(tensor.to_array().rows(b, 1));
      };
      const auto expected =
          reference::mla_decode({.q_latent = row_of(q_latent),
                                 .q_rope = row_of(q_rope),
                                 .latent = pick_columns(sequence.latent, row_columns(columns)),
                                 .rope = sequence.rope,
                                 .scale = static_cast<double>(kScale),
                                 .window = shape.window,
                                 .window_q_latent = row_of(q_whole),
                                 .window_latent = sequence.latent});
      expect_close(row_of(out), expected.out, tolerance(shape, sequence.latent.dim(0)));
      expect_close(
          row_of(lse),
          expected.log_sum_exp,
          {.relative = kFloat32Rounding, .slack = sum_slack(shape, sequence.latent.dim(0))});
    }
  }

  Sequence random_sequence(const Shape& shape, int64_t length) {
    return {HostTensor(shape.dtype, random_.array({length, shape.width})).to_array(),
            HostTensor(shape.dtype, random_.array({length, shape.rope})).to_array()};
  }
  void write(const Sequence& sequence,
             const std::vector<int64_t>& slots,
             const LatentColumns& columns,
             const kernels::LatentCacheView& cache) {
    const HostTensor latent(DType::kFloat32, sequence.latent);
    const HostTensor rope(DType::kFloat32, sequence.rope);
    const HostTensor slot(slots);
    ops().latent_write({.latent = latent.view(),
                        .rope = rope.view(),
                        .slots = slot.view(),
                        .columns = columns,
                        .cache = cache},
                       {});
  }

  /// As in mla_decode_slices_test: logits of at most 0.1 (R + dr) round once a product, weights and
  /// sums once a key.
  static double sum_slack(const Shape& shape, int64_t length) {
    const auto terms = static_cast<double>(shape.width + shape.rope);
    return (0.1 * terms * terms + static_cast<double>(length)) * kFloat32Rounding;
  }
  /// Values are at most 1, and so is the sum of weights whose roundings add up.
  static Tolerance tolerance(const Shape& shape, int64_t length) {
    const double weights = shape.is_aligned() ? rounding_of(shape.dtype) : 0.0;
    return {.relative = rounding_of(shape.dtype), .slack = sum_slack(shape, length) + weights};
  }
};

std::string name_of(const LatentWindow& window) {
  return "window " + std::to_string(window.num_first) + "+" + std::to_string(window.num_last);
}

TEST_P(MlaDecodeWindowTest, MatchesTheReferenceForMixedLengths) {
  for (const LatentWindow window : {LatentWindow{0, 16},
                                    LatentWindow{4, 16},
                                    LatentWindow{5, 1},
                                    LatentWindow{3, 0},
                                    LatentWindow{70, 65},
                                    LatentWindow{0, 0}}) {
    SCOPED_TRACE(name_of(window));
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      check({1, 15, 16, 17, 63, 64, 65, 3, 1000, 0, 20, 21}, {.window = window, .dtype = dtype});
    }
  }
}

TEST_P(MlaDecodeWindowTest, MatchesTheReferenceInARingWithRowsToSpare) {
  for (const int64_t step_rows : {2, 33, 200}) {
    SCOPED_TRACE("rows of a step " + std::to_string(step_rows));
    check({40, 17, 130, 255, 1000}, {.window = {4, 16}, .step_rows = step_rows});
    check({40, 17, 130, 255, 1000}, {.window = {0, 100}, .step_rows = step_rows});
  }
}

TEST_P(MlaDecodeWindowTest, MatchesTheReferenceForAnySlice) {
  for (const int64_t num_shared : {0, 4, 20, 28}) {
    for (const int64_t slice : {0, 3}) {
      SCOPED_TRACE("shared " + std::to_string(num_shared));
      check({70, 5, 200},
            {.window = {4, 40},
             .dtype = DType::kBFloat16,
             .num_heads = 17,
             .num_shared = num_shared,
             .num_slices = 4,
             .slice = slice});
    }
  }
}

TEST_P(MlaDecodeWindowTest, LongerThanTheContextNeedsNoPagedRows) {
  // The paged rows are all NaN then: what comes out is attention over whole latents.
  for (const LatentWindow window : {LatentWindow{0, 300}, LatentWindow{300, 0}}) {
    check({1, 64, 65, 299, 300}, {.window = window, .num_heads = 5, .width = 100});
  }
}

TEST_P(MlaDecodeWindowTest, SplitsALongSequenceOverThreads) {
  check({3000}, {.window = {16, 500}, .num_heads = 1, .width = 64, .num_shared = 0});
}

/// Of half a latent of 512 columns, as a rank of two has it.
Shape model_shape(const LatentWindow& window, int64_t num_heads, int64_t num_shared = 0) {
  return {.window = window,
          .dtype = DType::kBFloat16,
          .num_heads = num_heads,
          .width = 512,
          .num_shared = num_shared,
          .rope = 64,
          .padding = 8};
}

TEST_P(MlaDecodeWindowTest, MatchesTheReferenceAtSizesOfModels) {
  for (const LatentWindow window : {LatentWindow{0, 16},
                                    LatentWindow{4, 16},
                                    LatentWindow{70, 65},
                                    LatentWindow{64, 64},
                                    LatentWindow{0, 0}}) {
    SCOPED_TRACE(name_of(window));
    check({1, 15, 16, 17, 64, 65, 80, 135, 136, 0, 300}, model_shape(window, 4));
  }
}

TEST_P(MlaDecodeWindowTest, MatchesTheReferenceForAnyHeadsOfModels) {
  for (const int64_t num_heads : {16, 17, 64, 65, 128}) {
    SCOPED_TRACE("heads " + std::to_string(num_heads));
    check({81, 3, 145}, model_shape({4, 16}, num_heads));
  }
}

TEST_P(MlaDecodeWindowTest, MatchesTheReferenceForAnySliceOfModels) {
  for (const int64_t num_slices : {2, 4, 8}) {
    for (const int64_t num_shared : {0, 128}) {
      SCOPED_TRACE(std::to_string(num_slices) + " slices, shared " + std::to_string(num_shared));
      Shape shape = model_shape({0, 16}, 16, num_shared);
      shape.num_slices = num_slices;
      check({1, 17, 65, 200}, shape);
    }
  }
}

TESSERA_TEST_THREADS(MlaDecodeWindowTest);

}  // namespace
}  // namespace tessera::testing
