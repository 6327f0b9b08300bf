#include "engine/handoff/probe_check.h"

#include <cmath>

#include "engine/base/check.h"
#include "engine/base/text.h"

namespace tessera {
namespace {

/// Part of the sum of magnitudes that two right sums may differ by. Both add the same rounded
/// values in double, so only the order differs: a row, then layers, then blocks, some thousand
/// additions one after the other, each wrong by 2^-53 at most. One wrong row among a million tokens
/// still moves the sum by thousands of times this.
constexpr double kTolerance = 1e-11;

bool are_equal(double expected, const kernels::ProbeSum& landed) {
  // NaN, as of memory that was never written, is not equal.
  return std::abs(landed.sum - expected) <= kTolerance * landed.magnitude;
}

}  // namespace

Status compare_probes(const DecodeLayout& layout,
                      std::span<const double> expected,
                      std::span<const kernels::ProbeSum> landed) {
  TESSERA_CHECK(static_cast<int64_t>(landed.size()) == layout.num_ranks, "one probe a rank");
  if (static_cast<int64_t>(expected.size()) != layout.num_images) {
    return data_loss(str_cat("prefill sent ",
                             expected.size(),
                             " probes, expected one for each of ",
                             layout.num_images,
                             " slices"));
  }
  if (layout.dealing == DecodeLayout::Dealing::kBlocks) {
    kernels::ProbeSum all;
    for (const kernels::ProbeSum& rank : landed) {
      all.sum += rank.sum;
      all.magnitude += rank.magnitude;
    }
    return are_equal(expected[0], all)
               ? Status::ok()
               : data_loss(str_cat("blocks were dealt wrong: the probe of ranks 0 to ",
                                   landed.size() - 1,
                                   " is ",
                                   all.sum,
                                   ", prefill expects ",
                                   expected[0]));
  }
  for (size_t rank = 0; rank < landed.size(); ++rank) {
    const size_t slice = rank % expected.size();
    if (!are_equal(expected[slice], landed[rank])) {
      return data_loss(str_cat("blocks were dealt wrong: the probe of rank ",
                               rank,
                               " is ",
                               landed[rank].sum,
                               ", prefill expects ",
                               expected[slice],
                               " of slice ",
                               slice));
    }
  }
  return Status::ok();
}

}  // namespace tessera
