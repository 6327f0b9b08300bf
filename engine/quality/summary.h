// A measured mode in a few figures with their standard errors, and as curves over the decoded
// position. Windows are the samples: all errors are of means over windows, and paired, since every
// mode is compared with the exact model on the same ones.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/quality/quality.h"

namespace tessera {

struct Estimate {
  double mean = 0.0;
  double error = 0.0;  ///< standard error over windows; 0 with one window
};

struct QualitySummary {
  Estimate kl;  ///< nats a token
  double exact_perplexity = 0.0;
  double perplexity = 0.0;
  Estimate perplexity_ratio;       ///< mode to exact
  Estimate top1_agreement;         ///< share of tokens
  Estimate agreement_length;       ///< tokens, at most M
  int64_t num_fully_agreeing = 0;  ///< windows whose greedy continuation never differs
  double bytes_ratio = 0.0;        ///< cache of a rank to that of one that keeps everything
};

/// `quality` has at least one window.
[[nodiscard]] QualitySummary summarize(const Quality& quality);

/// Means over the decoded positions [begin, end), counted from the first decoded row.
struct CurvePoint {
  int64_t begin = 0;
  int64_t end = 0;
  double kl = 0.0;
  double exact_perplexity = 0.0;
  double perplexity = 0.0;
  double top1_agreement = 0.0;
};

/// At most `max_points` buckets of equal size (the last may be smaller).
[[nodiscard]] std::vector<CurvePoint> quality_curve(const Quality& quality,
                                                    int64_t max_points = 64);

}  // namespace tessera
