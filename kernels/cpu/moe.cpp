// Mixture of experts: choice of experts, sorting of tokens by expert, weighted sum of the results.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// Index of the largest value; the lowest index among equals.
int64_t argmax(const float* values, int64_t count) {
  return std::max_element(values, values + count) - values;
}

void score(const MoeGateParams& params, const float* logits, int64_t count, float* scores) {
  if (params.scoring == MoeScoring::kSigmoid) {
    for (int64_t e = 0; e < count; ++e) {
      scores[e] = 1.0F / (1.0F + std::exp(-logits[e]));
    }
    return;
  }
  const float max_logit = logits[argmax(logits, count)];
  float sum = 0.0F;
  for (int64_t e = 0; e < count; ++e) {
    scores[e] = std::exp(logits[e] - max_logit);
    sum += scores[e];
  }
  for (int64_t e = 0; e < count; ++e) {
    scores[e] /= sum;
  }
}

float group_score(const MoeGateParams& params, const float* choice, int64_t size) {
  const float best = *std::max_element(choice, choice + size);
  if (params.topk != MoeTopk::kNoauxTc) {
    return best;
  }
  const int64_t best_index = argmax(choice, size);
  float second = kMinusInfinity;
  for (int64_t i = 0; i < size; ++i) {
    second = i != best_index ? std::max(second, choice[i]) : second;
  }
  return size > 1 ? best + second : best;
}

/// Removes every group but the best num_kept_groups from `choice`. `ranks` holds num_groups floats.
void keep_best_groups(const MoeGateParams& params, float* choice, int64_t count, float* ranks) {
  const int64_t size = count / params.num_groups;
  for (int64_t g = 0; g < params.num_groups; ++g) {
    ranks[g] = group_score(params, choice + g * size, size);
  }
  for (int64_t kept = 0; kept < params.num_kept_groups; ++kept) {
    ranks[argmax(ranks, params.num_groups)] = kMinusInfinity;
  }
  for (int64_t g = 0; g < params.num_groups; ++g) {
    if (ranks[g] != kMinusInfinity) {
      std::fill_n(choice + g * size, size, kMinusInfinity);
    }
  }
}

/// `scratch` holds 2 E + num_groups floats.
void gate_row(const MoeGateParams& params, int64_t t, float* scratch) {
  const int64_t count = params.logits.dim(1);
  const int64_t top_k = params.expert_ids.dim(1);
  float* scores = scratch;
  float* choice = scratch + count;
  score(params, params.logits.as<float>() + t * params.logits.stride[0], count, scores);
  for (int64_t e = 0; e < count; ++e) {
    choice[e] = scores[e] + (params.bias.data != nullptr ? params.bias.as<float>()[e] : 0.0F);
  }
  if (params.topk != MoeTopk::kGreedy && params.num_kept_groups < params.num_groups) {
    keep_best_groups(params, choice, count, choice + count);
  }
  int32_t* ids = params.expert_ids.as<int32_t>() + t * params.expert_ids.stride[0];
  float* weights = params.expert_weights.as<float>() + t * params.expert_weights.stride[0];
  float sum = 0.0F;
  for (int64_t k = 0; k < top_k; ++k) {
    const int64_t best = argmax(choice, count);
    ids[k] = static_cast<int32_t>(best);
    weights[k] = scores[best];
    sum += scores[best];
    choice[best] = kMinusInfinity;
  }
  const float factor = params.normalize ? params.scale / (sum + 1e-20F) : params.scale;
  for (int64_t k = 0; k < top_k; ++k) {
    weights[k] *= factor;
  }
}

}  // namespace

void CpuOps::do_moe_gate(const MoeGateParams& params, StreamView) {
  const int64_t count = params.logits.dim(1);
  const int64_t row_cost = count * (params.expert_ids.dim(1) + 8);
  for_row_ranges(params.logits.dim(0), row_cost, [&](int64_t begin, int64_t end, int worker) {
    float* buffer = scratch(worker, 2 * count + params.num_groups);
    for (int64_t t = begin; t < end; ++t) {
      gate_row(params, t, buffer);
    }
  });
}

void CpuOps::do_moe_permute(const MoePermuteParams& params, StreamView) {
  const int64_t num_pairs = params.expert_ids.num_elements();
  const int64_t top_k = params.expert_ids.dim(1);
  const int64_t num_experts = params.offsets.dim(0) - 1;
  const int32_t* ids = params.expert_ids.as<int32_t>();
  int32_t* offsets = params.offsets.as<int32_t>();
  int32_t* row_of_pair = params.row_of_pair.as<int32_t>();
  // Counting sort: offsets[e + 1] counts expert e, then becomes its end.
  std::fill_n(offsets, num_experts + 1, 0);
  for (int64_t i = 0; i < num_pairs; ++i) {
    row_of_pair[i] = offsets[ids[i] + 1]++;
  }
  for (int64_t e = 0; e < num_experts; ++e) {
    offsets[e + 1] += offsets[e];
  }
  const auto row_bytes = static_cast<size_t>(params.x.dim(1) * dtype_bytes(params.x.dtype));
  const auto stride_bytes = params.x.stride[0] * dtype_bytes(params.x.dtype);
  for_row_ranges(num_pairs, params.x.dim(1), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      row_of_pair[i] += offsets[ids[i]];
      std::memcpy(params.permuted.as<char>() + row_of_pair[i] * static_cast<int64_t>(row_bytes),
                  params.x.as<char>() + i / top_k * stride_bytes,
                  row_bytes);
    }
  });
}

void CpuOps::do_moe_combine(const MoeCombineParams& params, StreamView) {
  const int64_t top_k = params.row_of_pair.dim(1);
  const int64_t width = params.out.dim(1);
  const bool has_window = params.offsets.data != nullptr;
  const int64_t row_begin = has_window ? params.offsets.as<int32_t>()[0] : 0;
  const int64_t row_end = has_window ? params.offsets.as<int32_t>()[params.offsets.dim(0) - 1]
                                     : params.expert_out.dim(0);
  for_row_ranges(params.out.dim(0), top_k * width, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* out = params.out.as<float>() + t * params.out.stride[0];
      if (!params.accumulate) {
        std::fill_n(out, width, 0.0F);
      }
      for (int64_t j = 0; j < top_k; ++j) {
        const int64_t row = params.row_of_pair.as<int32_t>()[t * top_k + j];
        if (row < row_begin || row >= row_end) {
          continue;
        }
        math_.add_scaled(out,
                         params.expert_out.as<float>() + row * params.expert_out.stride[0],
                         width,
                         params.expert_weights.as<float>()[t * top_k + j]);
      }
    }
  });
}

}  // namespace tessera::kernels::cpu
