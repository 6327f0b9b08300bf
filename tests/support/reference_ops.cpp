#include "tests/support/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace tessera::testing::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double dot(const double* a, const double* b, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

/// Turns `logits` into probabilities; returns their log-sum-exp.
double softmax(std::vector<double>& logits) {
  if (logits.empty()) {
    return -kInfinity;
  }
  const double max_logit = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (double& logit : logits) {
    logit = std::exp(logit - max_logit);
    sum += logit;
  }
  for (double& logit : logits) {
    logit /= sum;
  }
  return max_logit + std::log(sum);
}

/// Indices of `values`, best first, the lower index first among equals.
std::vector<size_t> descending(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(
      order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] > values[b]; });
  return order;
}

std::vector<double> expert_scores(const double* logits, int64_t count, const MoeGate& params) {
  std::vector<double> scores(logits, logits + count);
  if (params.scoring == kernels::MoeScoring::kSoftmax) {
    softmax(scores);
    return scores;
  }
  for (double& score : scores) {
    score = 1.0 / (1.0 + std::exp(-score));
  }
  return scores;
}

/// Experts of the groups that a token may choose from.
std::vector<bool> allowed_experts(const std::vector<double>& choice, const MoeGate& params) {
  if (params.topk == kernels::MoeTopk::kGreedy) {
    return std::vector<bool>(choice.size(), true);
  }
  const size_t size = choice.size() / static_cast<size_t>(params.num_groups);
  std::vector<double> ranks;
  for (size_t begin = 0; begin < choice.size(); begin += size) {
    std::vector<double> group(choice.begin() + static_cast<std::ptrdiff_t>(begin),
                              choice.begin() + static_cast<std::ptrdiff_t>(begin + size));
    std::sort(group.rbegin(), group.rend());
    const bool is_pair = params.topk == kernels::MoeTopk::kNoauxTc && size > 1;
    ranks.push_back(is_pair ? group[0] + group[1] : group[0]);
  }
  const std::vector<size_t> order = descending(ranks);
  std::vector<bool> allowed(choice.size(), false);
  for (size_t kept = 0; kept < static_cast<size_t>(params.num_kept_groups); ++kept) {
    for (size_t i = 0; i < size; ++i) {
      allowed[order[kept] * size + i] = true;
    }
  }
  return allowed;
}

}  // namespace

Array gather_rows(const Array& x, const std::vector<int32_t>& rows) {
  Array out({static_cast<int64_t>(rows.size()), x.dim(1)});
  for (size_t t = 0; t < rows.size(); ++t) {
    for (int64_t d = 0; d < x.dim(1); ++d) {
      out.at(t, d) = x.at(rows[t], d);
    }
  }
  return out;
}

Array rms_norm(const Array& x, const Array& weight, double epsilon) {
  Array out(x.shape);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const int64_t width = x.dim(1);
    const double mean_square = dot(x.row(t), x.row(t), width) / static_cast<double>(width);
    for (int64_t d = 0; d < width; ++d) {
      out.at(t, d) = x.at(t, d) / std::sqrt(mean_square + epsilon) * weight.at(d);
    }
  }
  return out;
}

Array rope(const Array& x, const Rope& rotation) {
  Array out(x.shape);
  const int64_t half = x.dim(2) / 2;
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const int32_t position = rotation.positions[static_cast<size_t>(t)];
    for (int64_t h = 0; h < x.dim(1); ++h) {
      for (int64_t i = 0; i < half; ++i) {
        const int64_t first = rotation.is_interleaved ? 2 * i : i;
        const int64_t second = rotation.is_interleaved ? 2 * i + 1 : i + half;
        const double cosine = rotation.cos.at(position, i);
        const double sine = rotation.sin.at(position, i);
        out.at(t, h, first) = x.at(t, h, first) * cosine - x.at(t, h, second) * sine;
        out.at(t, h, second) = x.at(t, h, first) * sine + x.at(t, h, second) * cosine;
      }
    }
  }
  return out;
}

Array silu_mul(const Array& x) {
  const int64_t width = x.dim(1) / 2;
  Array out({x.dim(0), width});
  for (int64_t t = 0; t < x.dim(0); ++t) {
    for (int64_t i = 0; i < width; ++i) {
      const double gate = x.at(t, i);
      out.at(t, i) = gate / (1.0 + std::exp(-gate)) * x.at(t, width + i);
    }
  }
  return out;
}

Array linear(const Array& x, const Array& weight, const Array& bias) {
  Array out({x.dim(0), weight.dim(0)});
  for (int64_t t = 0; t < x.dim(0); ++t) {
    for (int64_t n = 0; n < weight.dim(0); ++n) {
      const double offset = bias.values.empty() ? 0.0 : bias.at(n);
      out.at(t, n) = dot(x.row(t), weight.row(n), x.dim(1)) + offset;
    }
  }
  return out;
}

Array batched_linear(const Array& x, const Array& weight) {
  Array out({x.dim(0), x.dim(1), weight.dim(1)});
  for (int64_t t = 0; t < x.dim(0); ++t) {
    for (int64_t g = 0; g < x.dim(1); ++g) {
      for (int64_t n = 0; n < weight.dim(1); ++n) {
        out.at(t, g, n) = dot(x.row(t, g), weight.row(g, n), x.dim(2));
      }
    }
  }
  return out;
}

Array grouped_linear(const Array& x, const std::vector<int32_t>& offsets, const Array& weight) {
  Array out({x.dim(0), weight.dim(1)});
  for (int64_t g = 0; g < weight.dim(0); ++g) {
    for (int64_t m = offsets[static_cast<size_t>(g)]; m < offsets[static_cast<size_t>(g) + 1];
         ++m) {
      for (int64_t n = 0; n < weight.dim(1); ++n) {
        out.at(m, n) = dot(x.row(m), weight.row(g, n), x.dim(1));
      }
    }
  }
  return out;
}

Attention mla_prefill(const MlaPrefill& params) {
  const int64_t heads = params.q.dim(1);
  const int64_t rope = params.k_rope.dim(1);
  const int64_t nope = params.q.dim(2) - rope;
  const int64_t value = params.kv.dim(2) - nope;
  Attention result{Array({params.q.dim(0), heads, value}), Array({params.q.dim(0), heads})};
  for (int64_t t = 0; t < params.q.dim(0); ++t) {
    const int64_t visible = std::min(params.kv.dim(0), params.query_begin + t + 1);
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<double> weights;
      for (int64_t j = 0; j < visible; ++j) {
        weights.push_back(params.scale *
                          (dot(params.q.row(t, h), params.kv.row(j, h), nope) +
                           dot(params.q.row(t, h) + nope, params.k_rope.row(j), rope)));
      }
      result.log_sum_exp.at(t, h) = softmax(weights);
      for (int64_t j = 0; j < visible; ++j) {
        for (int64_t d = 0; d < value; ++d) {
          result.out.at(t, h, d) += weights[static_cast<size_t>(j)] * params.kv.row(j, h)[nope + d];
        }
      }
    }
  }
  return result;
}

double float8_unit(const double* row, int64_t width) {
  double largest = 0.0;
  for (int64_t i = 0; i < width; ++i) {
    largest = std::max(largest, std::fabs(row[i]));
  }
  double unit = 0x1.0p-117;  // the smallest and the largest unit of the format
  while (largest > 448.0 * unit && unit < 0x1.0p119) {
    unit *= 2.0;
  }
  return unit;
}

Array float8_rows(const Array& latents) {
  Array result = latents;
  const int64_t width = latents.dim(1);
  for (int64_t row = 0; row < latents.dim(0); ++row) {
    const double unit = float8_unit(latents.row(row), width);
    for (int64_t i = 0; i < width; ++i) {
      const double value = std::clamp(latents.at(row, i) / unit, -448.0, 448.0);
      // Below 2^-6 numbers are as far apart as there.
      const double step = std::exp2(std::max(std::floor(std::log2(std::fabs(value))), -6.0) - 3.0);
      result.at(row, i) = value == 0.0 ? 0.0 : std::nearbyint(value / step) * step * unit;
    }
  }
  return result;
}

Attention mla_decode(const MlaDecode& params) {
  const int64_t heads = params.q_latent.dim(0);
  const int64_t width = params.q_latent.dim(1);
  Attention result{Array({heads, width}), Array({heads})};
  for (int64_t h = 0; h < heads; ++h) {
    std::vector<double> weights;
    for (int64_t j = 0; j < params.latent.dim(0); ++j) {
      const bool is_exact = params.window.contains(j, params.latent.dim(0));
      const double latent = is_exact ? dot(params.window_q_latent.row(h),
                                           params.window_latent.row(j),
                                           params.window_latent.dim(1))
                                     : dot(params.q_latent.row(h), params.latent.row(j), width);
      const double rope = dot(params.q_rope.row(h), params.rope.row(j), params.rope.dim(1));
      weights.push_back(params.scale * (latent + rope));
    }
    result.log_sum_exp.at(h) = softmax(weights);
    double* out = &result.out.at(h, 0);
    for (int64_t j = 0; j < params.latent.dim(0); ++j) {
      const double* latent = params.latent.row(j);
      for (int64_t r = 0; r < width; ++r) {
        out[r] += weights[static_cast<size_t>(j)] * latent[r];
      }
    }
  }
  return result;
}

Array merge_scale(Array values, const Array& log_sum_exp, int64_t part) {
  for (int64_t b = 0; b < values.dim(0); ++b) {
    for (int64_t h = 0; h < values.dim(1); ++h) {
      double sum = 0.0;
      for (int64_t g = 0; g < log_sum_exp.dim(0); ++g) {
        sum += std::exp(log_sum_exp.at(g, b, h));
      }
      for (int64_t j = 0; j < values.dim(2); ++j) {
        values.at(b, h, j) *= std::exp(log_sum_exp.at(part, b, h)) / sum;
      }
    }
  }
  return values;
}

MoeChoice moe_gate(const Array& logits, const Array& bias, const MoeGate& params) {
  const int64_t experts = logits.dim(1);
  MoeChoice result{Array({logits.dim(0), params.top_k}), Array({logits.dim(0), params.top_k})};
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    const std::vector<double> scores = expert_scores(logits.row(t), experts, params);
    std::vector<double> choice = scores;
    for (size_t e = 0; e < choice.size() && !bias.values.empty(); ++e) {
      choice[e] += bias.at(e);
    }
    const std::vector<bool> allowed = allowed_experts(choice, params);
    int64_t k = 0;
    double sum = 0.0;
    for (const size_t e : descending(choice)) {
      if (allowed[e] && k < params.top_k) {
        result.expert_ids.at(t, k) = static_cast<double>(e);
        result.expert_weights.at(t, k++) = scores[e];
        sum += scores[e];
      }
    }
    for (k = 0; k < params.top_k; ++k) {
      result.expert_weights.at(t, k) *= params.scale / (params.normalize ? sum : 1.0);
    }
  }
  return result;
}

Array moe_combine(const Array& base,
                  const Array& expert_out,
                  const Array& row_of_pair,
                  const Array& weights) {
  Array out = base;
  for (int64_t t = 0; t < base.dim(0); ++t) {
    for (int64_t j = 0; j < weights.dim(1); ++j) {
      const auto row = static_cast<int64_t>(row_of_pair.at(t, j));
      for (int64_t d = 0; d < base.dim(1); ++d) {
        out.at(t, d) += weights.at(t, j) * expert_out.at(row, d);
      }
    }
  }
  return out;
}

std::vector<double> adjusted_logits(std::vector<double> logits, const Sampling& params) {
  for (size_t i = 0; i < params.bias_ids.size(); ++i) {
    logits[static_cast<size_t>(params.bias_ids[i])] += params.bias_values[i];
  }
  for (size_t i = 0; i < params.history_ids.size(); ++i) {
    double& logit = logits[static_cast<size_t>(params.history_ids[i])];
    const double count = params.history_counts[i];
    logit = logit > 0.0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    logit -= count * params.frequency_penalty + (count > 0.0 ? params.presence_penalty : 0.0);
  }
  return logits;
}

std::vector<double> sampling_probabilities(const std::vector<double>& logits,
                                           const Sampling& params) {
  std::vector<double> probabilities = adjusted_logits(logits, params);
  for (double& logit : probabilities) {
    logit /= params.temperature;
  }
  softmax(probabilities);
  const std::vector<size_t> order = descending(probabilities);
  size_t kept = order.size();
  if (params.top_k > 0) {
    kept = std::min(kept, static_cast<size_t>(params.top_k));
  }
  double mass = 0.0;
  for (size_t i = 0; i < kept; ++i) {
    mass += probabilities[order[i]];
  }
  double reached = 0.0;
  for (size_t i = 0; i < kept && params.top_p < 1.0; ++i) {
    reached += probabilities[order[i]];
    if (reached >= params.top_p * mass) {
      kept = i + 1;
    }
  }
  const double best = probabilities[order[0]];
  double total = 0.0;
  for (size_t i = 0; i < order.size(); ++i) {
    const bool is_kept = i < kept && probabilities[order[i]] >= params.min_p * best;
    probabilities[order[i]] = is_kept ? probabilities[order[i]] : 0.0;
    total += probabilities[order[i]];
  }
  for (double& probability : probabilities) {
    probability /= total;
  }
  return probabilities;
}

std::vector<double> log_softmax(const std::vector<double>& logits) {
  std::vector<double> probabilities = logits;
  const double log_sum = softmax(probabilities);
  std::vector<double> result = logits;
  for (double& value : result) {
    value -= log_sum;
  }
  return result;
}

}  // namespace tessera::testing::reference
