// Every operation of kernels/ops/ops.h as plain loops in double precision, written from the
// formulas in the params headers and the papers they cite. Slow on purpose: no tiles, no tricks.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops/latent_window.h"
#include "kernels/ops/moe_params.h"
#include "tests/support/host_tensor.h"

namespace tessera::testing::reference {

/// out[t] = x[rows[t]]; also the embedding.
[[nodiscard]] Array gather_rows(const Array& x, const std::vector<int32_t>& rows);
/// x / sqrt(mean(x^2) + epsilon) * weight, row by row.
[[nodiscard]] Array rms_norm(const Array& x, const Array& weight, double epsilon);
/// `x` [T, H, dr]; pair i of token t turns by the angle whose cos and sin stand at
/// [positions[t], i].
struct Rope {
  std::vector<int32_t> positions;
  Array cos, sin;
  bool is_interleaved = true;
};
[[nodiscard]] Array rope(const Array& x, const Rope& rotation);
/// silu(x[:, :I]) * x[:, I:].
[[nodiscard]] Array silu_mul(const Array& x);

/// x [T, K], weight [N, K], bias [N] or empty.
[[nodiscard]] Array linear(const Array& x, const Array& weight, const Array& bias);
/// x [T, G, K], weight [G, N, K].
[[nodiscard]] Array batched_linear(const Array& x, const Array& weight);
/// x [M, K], weight [G, N, K]; rows [offsets[g], offsets[g + 1]) use group g.
[[nodiscard]] Array grouped_linear(const Array& x,
                                   const std::vector<int32_t>& offsets,
                                   const Array& weight);

/// Rows of latents [n, w] as float8 rows of the cache hold them: to the nearest number of 4
/// significant bits, ties to even, in each row in units of a power of two with which the largest is
/// at most 448.
[[nodiscard]] Array float8_rows(const Array& latents);
/// That unit, of one row.
[[nodiscard]] double float8_unit(const double* row, int64_t width);

struct Attention {
  Array out;
  Array log_sum_exp;
};
/// Causal attention of all queries over all keys in one pass.
struct MlaPrefill {
  Array q;       ///< [T, H, dn + dr]
  Array kv;      ///< [n, H, dn + dv]
  Array k_rope;  ///< [n, dr]
  int64_t query_begin = 0;
  double scale = 1.0;
};
[[nodiscard]] Attention mla_prefill(const MlaPrefill& params);
/// One sequence's absorbed attention; no rows yields zeros and -inf.
struct MlaDecode {
  Array q_latent;  ///< [H, w]
  Array q_rope;    ///< [H, dr]
  Array latent;    ///< [n, w]
  Array rope;      ///< [n, dr]
  double scale = 1.0;
  /// Tokens whose logits come from whole latents instead; their values are `latent`'s all the same.
  kernels::LatentWindow window = {};
  Array window_q_latent = {};  ///< [H, R]
  Array window_latent = {};    ///< [n, R]
};
[[nodiscard]] Attention mla_decode(const MlaDecode& params);

/// values [B, H, dv] times the share of `part` in the sum of exp(log_sum_exp [G, B, H]).
[[nodiscard]] Array merge_scale(Array values, const Array& log_sum_exp, int64_t part);

/// The same choices as MoeGateParams, as numbers.
struct MoeGate {
  kernels::MoeScoring scoring = kernels::MoeScoring::kSoftmax;
  kernels::MoeTopk topk = kernels::MoeTopk::kGreedy;
  int64_t top_k = 1;
  int64_t num_groups = 1;
  int64_t num_kept_groups = 1;
  bool normalize = false;
  double scale = 1.0;
};
struct MoeChoice {
  Array expert_ids;
  Array expert_weights;
};
/// logits [T, E], bias [E] or empty.
[[nodiscard]] MoeChoice moe_gate(const Array& logits, const Array& bias, const MoeGate& params);
/// base[t] + sum_j weights[t, j] * expert_out[row_of_pair[t, j]].
[[nodiscard]] Array moe_combine(const Array& base,
                                const Array& expert_out,
                                const Array& row_of_pair,
                                const Array& weights);

/// What one sampled row asks for.
struct Sampling {
  double temperature = 1.0;
  int64_t top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::vector<int32_t> history_ids = {};
  std::vector<int32_t> history_counts = {};  ///< 0: in the prompt only
  std::vector<int32_t> bias_ids = {};
  std::vector<double> bias_values = {};
};
/// Logits after bias and penalties.
[[nodiscard]] std::vector<double> adjusted_logits(std::vector<double> logits,
                                                  const Sampling& params);
/// Probability of each token at a temperature above 0.
[[nodiscard]] std::vector<double> sampling_probabilities(const std::vector<double>& logits,
                                                         const Sampling& params);
[[nodiscard]] std::vector<double> log_softmax(const std::vector<double>& logits);

}  // namespace tessera::testing::reference
