// Decode attention over slices of one latent, some of whose columns every slice keeps: where the
// slices see equal logits, their values are those of attention over the whole latent.

#include <vector>

#include <gtest/gtest.h>

#include "tests/support/reference_ops.h"
#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::LatentColumns;

constexpr int64_t kHeads = 3;
constexpr int64_t kRope = 6;
constexpr int64_t kLength = 131;
constexpr float kScale = 0.1F;

/// One sequence's latents and queries, as the cache's type rounds them.
struct Sequence {
  Array q_latent;  ///< [1, H, R]
  Array q_rope;    ///< [1, H, dr]
  Array latent;    ///< [n, R]
  Array rope;      ///< [n, dr]
};

class MlaDecodeSlicesTest : public CpuOpsTest {
 protected:
  Sequence random_sequence(DType dtype, int64_t width) {
    const auto rounded = [&](std::vector<int64_t> shape) {
      return HostTensor(dtype, random_.array(std::move(shape))).to_array();
    };
    return {rounded({1, kHeads, width}),
            rounded({1, kHeads, kRope}),
            rounded({kLength, width}),
            rounded({kLength, kRope})};
  }

  /// What a rank that holds `columns` attends to: [1, H, values].
  Array attend(const Sequence& sequence, const LatentColumns& columns, DType dtype) {
    const PoisonedCache cache(dtype, 4, columns.width(), kRope);
    const std::vector<int32_t> blocks = {3, 0, 2};
    const HostTensor slots(slots_of(blocks, kLength));
    const HostTensor latent(DType::kFloat32, sequence.latent);
    const HostTensor rope(DType::kFloat32, sequence.rope);
    ops().latent_write({.latent = latent.view(),
                        .rope = rope.view(),
                        .slots = slots.view(),
                        .columns = columns,
                        .cache = cache.view()},
                       {});
    const HostTensor q_latent(dtype, pick_columns(sequence.q_latent, row_columns(columns)), 1);
    const HostTensor q_rope(dtype, sequence.q_rope);
    const HostTensor tables(DType::kInt32, Array({1, 3}, {3.0, 0.0, 2.0}));
    const HostTensor lengths(std::vector<int32_t>{kLength});
    HostTensor out(dtype, std::vector<int64_t>{1, kHeads, columns.num_values()}, 2);
    HostTensor lse(DType::kFloat32, std::vector<int64_t>{1, kHeads});
    ops().mla_decode({.q_latent = q_latent.view(),
                      .q_rope = q_rope.view(),
                      .cache = cache.view(),
                      .block_tables = tables.view(),
                      .lengths = lengths.view(),
                      .scale = kScale,
                      .value_begin = columns.value_begin,
                      .out = out.view(),
                      .log_sum_exp = lse.view()},
                     {});
    EXPECT_TRUE(out.is_padding_untouched());
    return out.to_array();
  }

  /// The slices' values, each added at its column of the latent: [H, R].
  Array add_up(const Sequence& sequence, int64_t num_shared, int64_t num_slices, DType dtype) {
    const int64_t width = sequence.latent.dim(1);
    Array sum({kHeads, width});
    for (int64_t slice = 0; slice < num_slices; ++slice) {
      const auto columns = LatentColumns::of_slice(width, num_shared, slice, num_slices);
      const std::vector<int64_t> held = row_columns(columns);
      const Array out = attend(sequence, columns, dtype);
      for (int64_t h = 0; h < kHeads; ++h) {
        for (int64_t i = 0; i < out.dim(2); ++i) {
          sum.at(h, held[static_cast<size_t>(columns.value_begin + i)]) += out.at(0, h, i);
        }
      }
    }
    return sum;
  }

  static Array exact(const Sequence& sequence) {
    const auto head_rows = [](Array array) {
      array.shape.erase(array.shape.begin());
      return array;
    };
    return reference::mla_decode({.q_latent = head_rows(sequence.q_latent),
                                  .q_rope = head_rows(sequence.q_rope),
                                  .latent = sequence.latent,
                                  .rope = sequence.rope,
                                  .scale = static_cast<double>(kScale)})
        .out;
  }

  /// Means of values of at most 1: logits of at most 0.1 * (R + dr) round once a product, weights
  /// and sums once a key; a slice's result rounds to the cache's type.
  static Tolerance tolerance(DType dtype, int64_t width) {
    const double terms = 0.1 * static_cast<double>((width + kRope) * (width + kRope)) + kLength;
    return {.relative = rounding_of(dtype), .slack = terms * kFloat32Rounding};
  }
};

TEST_P(MlaDecodeSlicesTest, ColumnsSharedByAllGiveTheExactValues) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int64_t width : {28, 64}) {
      for (const int64_t num_slices : {1, 2, 4}) {
        const Sequence sequence = random_sequence(dtype, width);
        expect_close(
            add_up(sequence, width, num_slices, dtype), exact(sequence), tolerance(dtype, width));
      }
    }
  }
}

TEST_P(MlaDecodeSlicesTest, QueriesOfSharedColumnsOnlyGiveTheExactValues) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int64_t num_shared : {0, 4, 8, 20}) {
      for (const int64_t num_slices : {2, 4}) {
        Sequence sequence = random_sequence(dtype, 28);
        for (int64_t h = 0; h < kHeads; ++h) {
          for (int64_t column = num_shared; column < 28; ++column) {
            sequence.q_latent.at(0, h, column) = 0.0;
          }
        }
        expect_close(
            add_up(sequence, num_shared, num_slices, dtype), exact(sequence), tolerance(dtype, 28));
      }
    }
  }
}

TESSERA_TEST_THREADS(MlaDecodeSlicesTest);

}  // namespace
}  // namespace tessera::testing
