// Sums of small tensors by another way than the library's all-reduce, and up to which size that is
// the faster one on this machine.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/core/device.h"
#include "kernels/ops/transform_params.h"

namespace tessera {

/// x [count], float32, becomes the sum over the ranks, each of which calls it.
using RankSum = std::function<void(int rank, float* x, int64_t count, kernels::StreamView stream)>;

/// The same for norm.add, which is left as it was, then norm.x += the sum, and the norm. False:
/// not for these shapes, and nothing has been done.
using RankSumNorm =
    std::function<bool(int rank, const kernels::RmsNormParams& norm, kernels::StreamView stream)>;

/// `partial` [rows, ranks, width] of each rank, out [rows, width] = the sum over the ranks of this
/// one's part, rounded to out's type. False: not for these shapes, and nothing has been done.
using RankScatter = std::function<bool(
    int rank, const float* partial, const kernels::TensorView& out, kernels::StreamView stream)>;

struct SmallSum {
  RankSum run;                  ///< null: there is none
  RankSumNorm run_norm;         ///< null: there is none
  RankScatter run_scatter;      ///< null: there is none
  std::function<void()> abort;  ///< ends ranks that wait in it; any thread
  int64_t max_elements = 0;
};

/// The largest number of elements tried at which `small` is no slower than `large`; 0: it never is.
/// `devices`: of each rank, which record, and whose default streams are idle. `abort` is called
/// when a rank fails: it ends the others. Blocks for some tenths of a second. Throws DeviceError.
[[nodiscard]] int64_t small_sum_limit_blocking(const std::vector<kernels::Device*>& devices,
                                               const SmallSum& small,
                                               const RankSum& large,
                                               const std::function<void()>& abort);

}  // namespace tessera
