// Token sampling: a block is one choice. Penalties and bias, temperature, top-k, top-p, min-p, then
// one draw, as on the CPU. Every sum is added up in an order of its own or in whole numbers, so
// that a choice depends on nothing but its row.

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/ops/philox.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
/// The inverse of anything smaller overflows; the draw has long been greedy by then.
constexpr float kMinTemperature = 1e-30F;
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;
/// Masses are counted in units of 2^-40: a sum does not depend on its order.
constexpr float kMassUnits = 0x1.0p40F;

struct Sample {
  DeviceRows<const float> logits;
  const SampleRow* rows = nullptr;
  const int32_t* history_ids = nullptr;
  const int32_t* history_counts = nullptr;
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
  int32_t* token_ids = nullptr;
  float* logprobs = nullptr;
  int32_t* top_ids = nullptr;
  float* top_logprobs = nullptr;
  int32_t vocab = 0;
  int32_t first_sample = 0;
  float* scratch = nullptr;  ///< [samples of the launch, vocab]
};

/// A value and where it stands.
struct Best {
  float value;
  int index;

  __device__ bool is_before(const Best& other) const {
    return value > other.value || (value == other.value && index < other.index);
  }
};

struct Shared {
  Best best[kWarps];
  double sums[kWarps];
  unsigned long long counts[kDigits];
  unsigned long long total;
  unsigned prefix;
  int token;
};

__device__ Best better(const Best& a, const Best& b) {
  return a.is_before(b) ? a : b;
}

/// The largest of the values after `last` in descending order (lower indices first among equals).
__device__ Best block_best_after(const float* values, int count, const Best& last, Shared& shared) {
  Best best = {-INFINITY, INT32_MAX};
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const Best own = {values[i], i};
    if (last.is_before(own)) {
      best = better(own, best);
    }
  }
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    best = better({__shfl_xor_sync(kAllLanes, best.value, offset),
                   __shfl_xor_sync(kAllLanes, best.index, offset)},
                  best);
  }
  __syncthreads();
  if (threadIdx.x % kWarp == 0) {
    shared.best[threadIdx.x / kWarp] = best;
  }
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) {
    best = better(shared.best[w], best);
  }
  return best;
}

__device__ Best block_best(const float* values, int count, Shared& shared) {
  return block_best_after(values, count, {INFINITY, -1}, shared);
}

/// One thread a token: ids are distinct within a row's history; a bias may name one twice.
__device__ void apply_bias_and_penalties(const Sample& p, const SampleRow& row, float* logits) {
  for (int i = row.bias_begin + static_cast<int>(threadIdx.x); i < row.bias_end; i += kThreads) {
    atomicAdd(&logits[p.bias_ids[i]], p.bias_values[i]);
  }
  __syncthreads();
  for (int i = row.history_begin + static_cast<int>(threadIdx.x); i < row.history_end;
       i += kThreads) {
    float logit = logits[p.history_ids[i]];
    logit = logit > 0.0F ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    if (p.history_counts[i] > 0) {
      logit -=
          row.presence_penalty + row.frequency_penalty * static_cast<float>(p.history_counts[i]);
    }
    logits[p.history_ids[i]] = logit;
  }
  __syncthreads();
}

__device__ unsigned long long mass_of(float weight, float cutoff) {
  return weight >= cutoff ? static_cast<unsigned long long>(weight * kMassUnits) : 0ULL;
}

/// The largest weight w for which the total of `amount` over all weights >= w reaches `wanted`; 0
/// when none does. Weights are not negative, so their bits order as they do: one digit after the
/// other is found, from the highest.
template <typename Amount>
__device__ float select_cutoff(const float* weights,
                               int count,
                               unsigned long long wanted,
                               const Amount& amount,
                               Shared& shared) {
  unsigned prefix = 0;
  unsigned long long above = 0;  // of weights whose higher digits are larger
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kThreads) {
      shared.counts[i] = 0;
    }
    __syncthreads();
    const unsigned high_mask = shift + kDigitBits == 32 ? 0U : ~0U << (shift + kDigitBits);
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
      const unsigned bits = __float_as_uint(weights[i]);
      const unsigned long long own = amount(weights[i]);
      if ((bits & high_mask) == prefix && own > 0) {
        atomicAdd(&shared.counts[(bits >> shift) % kDigits], own);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned long long reached = above;
      int digit = kDigits - 1;
      while (digit > 0 && reached + shared.counts[digit] < wanted) {
        reached += shared.counts[digit--];
      }
      shared.total = reached;
      shared.prefix = prefix | static_cast<unsigned>(digit) << shift;
    }
    __syncthreads();
    above = shared.total;
    prefix = shared.prefix;
  }
  return __uint_as_float(prefix);
}

/// Sets weights below the row's limits to 0. `weights` are exp(logit - max).
__device__ void apply_limits(const SampleRow& row, float* weights, int count, Shared& shared) {
  float cutoff = 0.0F;
  if (row.top_k > 0 && row.top_k < count) {
    const auto one = [](float) { return 1ULL; };
    cutoff = select_cutoff(weights, count, static_cast<unsigned long long>(row.top_k), one, shared);
  }
  if (row.top_p < 1.0F) {
    const float kept = cutoff;
    const auto mass = [kept](float weight) { return mass_of(weight, kept); };
    unsigned long long total = 0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
      total += mass(weights[i]);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      shared.total = 0;
    }
    __syncthreads();
    total = warp_sum(total);
    if (threadIdx.x % kWarp == 0) {
      atomicAdd(&shared.total, total);
    }
    __syncthreads();
    const double wanted = static_cast<double>(row.top_p) * static_cast<double>(shared.total);
    const auto reach = static_cast<unsigned long long>(fmax(1.0, ceil(wanted)));
    cutoff = fmaxf(cutoff, select_cutoff(weights, count, reach, mass, shared));
  }
  cutoff = fmaxf(cutoff, row.min_p);  // the largest weight is 1
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    weights[i] = weights[i] < cutoff ? 0.0F : weights[i];
  }
  __syncthreads();
}

/// Walks the cumulative sum in id order. Each warp owns a run of ids; the warp in whose run the
/// draw falls walks it 32 ids at a time.
__device__ int draw(const float* weights, int count, float uniform, Shared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int run = (count + kThreads - 1) / kThreads * kWarp;
  const int begin = min(count, warp * run);
  const int end = min(count, begin + run);
  double sum = 0.0;
  int last = -1;  // of this run, with any weight
  for (int i = begin + lane; i < end; i += kWarp) {
    sum += static_cast<double>(weights[i]);
    last = weights[i] > 0.0F ? i : last;
  }
  sum = warp_sum(sum);
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    last = max(last, __shfl_xor_sync(kAllLanes, last, offset));
  }
  __syncthreads();
  if (lane == 0) {
    shared.sums[warp] = sum;
  }
  if (threadIdx.x == 0) {
    shared.token = 0;
  }
  __syncthreads();
  double total = 0.0;
  for (int w = 0; w < kWarps; ++w) {
    total += shared.sums[w];
  }
  double before = 0.0;
  for (int w = 0; w < warp; ++w) {
    before += shared.sums[w];
  }
  const double wanted = static_cast<double>(uniform) * total;
  // Should rounding put the draw behind all sums, it is the last token with any weight.
  if (lane == 0 && last >= 0 && before + sum <= wanted) {
    atomicMax(&shared.token, last);
  }
  __syncthreads();
  if (before <= wanted && wanted < before + sum) {
    int found = last;
    for (int first = begin; first < end; first += kWarp) {
      const int i = first + lane;
      const double own = i < end ? static_cast<double>(weights[i]) : 0.0;
      double through = own;  // of the lanes up to this one
      for (int offset = 1; offset < kWarp; offset *= 2) {
        const double other = __shfl_up_sync(kAllLanes, through, offset);
        through += lane >= offset ? other : 0.0;
      }
      const unsigned hits = __ballot_sync(kAllLanes, own > 0.0 && wanted < before + through);
      if (hits != 0) {
        found = first + __ffs(static_cast<int>(hits)) - 1;
        break;
      }
      before += __shfl_sync(kAllLanes, through, kWarp - 1);
    }
    if (lane == 0) {
      shared.token = found;
    }
  }
  __syncthreads();
  return shared.token;
}

__device__ void write_logprobs(
    const Sample& p, const SampleRow& row, int sample, int token, Shared& shared) {
  const float* raw = p.logits.row(row.logits_row);
  Best best = block_best(raw, p.vocab, shared);
  double sum = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < p.vocab; i += kThreads) {
    sum += static_cast<double>(expf(raw[i] - best.value));
  }
  sum = block_sum<kThreads>(sum, shared.sums);
  const float log_sum = best.value + logf(static_cast<float>(sum));
  if (threadIdx.x == 0) {
    p.logprobs[sample] = raw[token] - log_sum;
  }
  const int64_t first = sample * kMaxTopLogprobs;
  const int num_top = min(row.num_top_logprobs, min(p.vocab, static_cast<int>(kMaxTopLogprobs)));
  for (int i = 0; i < num_top; ++i) {
    if (threadIdx.x == 0) {
      p.top_ids[first + i] = best.index;
      p.top_logprobs[first + i] = best.value - log_sum;
    }
    best = block_best_after(raw, p.vocab, best, shared);
  }
}

__global__ void __launch_bounds__(kThreads) sample_rows(const __grid_constant__ Sample p) {
  __shared__ Shared shared;
  const int sample = p.first_sample + static_cast<int>(blockIdx.x);
  const SampleRow row = p.rows[sample];
  const float* logits = p.logits.row(row.logits_row);
  const bool is_changed = row.bias_begin < row.bias_end || row.history_begin < row.history_end;
  float* own = p.scratch + int64_t{blockIdx.x} * p.vocab;
  if (is_changed) {
    for (int i = static_cast<int>(threadIdx.x); i < p.vocab; i += kThreads) {
      own[i] = logits[i];
    }
    __syncthreads();
    apply_bias_and_penalties(p, row, own);
    logits = own;
  }
  const Best best = block_best(logits, p.vocab, shared);
  int token = best.index < p.vocab ? best.index : 0;  // all forbidden
  if (row.temperature > 0.0F) {
    // Differences first: a tiny temperature must not turn the logits themselves into infinities.
    const float sharpness = 1.0F / fmaxf(row.temperature, kMinTemperature);
    for (int i = static_cast<int>(threadIdx.x); i < p.vocab; i += kThreads) {
      own[i] = expf((logits[i] - best.value) * sharpness);
    }
    __syncthreads();
    apply_limits(row, own, p.vocab, shared);
    token = draw(own, p.vocab, uniform_of(row.seed, row.choice, row.position), shared);
  }
  if (threadIdx.x == 0) {
    p.token_ids[sample] = token;
  }
  if (row.num_top_logprobs >= 0) {
    write_logprobs(p, row, sample, token, shared);
  }
}

}  // namespace

void CudaOps::do_sample(const SampleParams& params, StreamView stream) {
  const cudaStream_t on = device_.enter(stream);
  const auto num_samples = static_cast<int32_t>(params.token_ids.dim(0));
  Sample sample{.logits = rows_of<float>(params.logits),
                .rows = params.rows.as<SampleRow>(),
                .history_ids = params.history_ids.as<int32_t>(),
                .history_counts = params.history_counts.as<int32_t>(),
                .bias_ids = params.bias_ids.as<int32_t>(),
                .bias_values = params.bias_values.as<float>(),
                .token_ids = params.token_ids.as<int32_t>(),
                .logprobs = params.logprobs.as<float>(),
                .top_ids = params.top_ids.as<int32_t>(),
                .top_logprobs = params.top_logprobs.as<float>(),
                .vocab = static_cast<int32_t>(params.logits.dim(1)),
                .scratch = static_cast<float*>(scratch_.data())};
  const int64_t row_bytes = sample.vocab * int64_t{sizeof(float)};
  const auto most = static_cast<int32_t>(kScratchBytes / row_bytes);
  TESSERA_CHECK(most > 0, "sample: the vocabulary does not fit the scratch");
  // As many at a time as have scratch; the stream keeps launches apart.
  for (; sample.first_sample < num_samples; sample.first_sample += most) {
    launch("sample",
           sample_rows,
           {to_grid(std::min(most, num_samples - sample.first_sample)), kThreads},
           on,
           sample);
  }
}

}  // namespace tessera::kernels::cuda
