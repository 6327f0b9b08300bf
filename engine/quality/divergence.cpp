#include "engine/quality/divergence.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>

#include "engine/base/check.h"

namespace tessera {
namespace {

// Values that are summed side by side: additions in a fixed order that a compiler may vectorise.
constexpr size_t kLanes = 8;
using Lanes = std::array<double, kLanes>;

// Of exp_nonpositive.
constexpr double kLog2e = 1.44269504088896340736;
constexpr double kLn2High = 6.93147180369123816490e-01;
constexpr double kLn2Low = 1.90821492927058770002e-10;
constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
constexpr double kLowest = -700.0;             // below that it adds nothing to any sum here

/// e^x for x <= 0 to the last bits of a double, without branches or calls, so that loops over it
/// vectorise: twenty times a libm call's speed, which would take as long as a small model's step.
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor series.
inline double exp_nonpositive(double x) {
  x = x < kLowest ? kLowest : x;
  const double shifted = x * kLog2e + kRound;
  const double n = shifted - kRound;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double e = 1.0 / 479001600.0;
  e = e * r + 1.0 / 39916800.0;
  e = e * r + 1.0 / 3628800.0;
  e = e * r + 1.0 / 362880.0;
  e = e * r + 1.0 / 40320.0;
  e = e * r + 1.0 / 5040.0;
  e = e * r + 1.0 / 720.0;
  e = e * r + 1.0 / 120.0;
  e = e * r + 1.0 / 24.0;
  e = e * r + 1.0 / 6.0;
  e = e * r + 0.5;
  e = e * r + 1.0;
  e = e * r + 1.0;
  // The low bits of `shifted` are n in two's complement: added to e's exponent.
  const uint64_t bits = std::bit_cast<uint64_t>(e) + (std::bit_cast<uint64_t>(shifted) << 52U);
  return std::bit_cast<double>(bits);
}

struct Sums {
  double exact = 0.0;     ///< of e^(p - max p)
  double mode = 0.0;      ///< of e^(q - max q)
  double weighted = 0.0;  ///< of e^(p - max p) ((p - max p) - (q - max q))
};

double total(const Lanes& lanes) {
  double sum = 0.0;
  for (const double lane : lanes) {
    sum += lane;
  }
  return sum;
}

Sums sum_up(std::span<const float> exact, std::span<const float> mode, double p_max, double q_max) {
  Lanes exact_sum{};
  Lanes mode_sum{};
  Lanes weighted{};
  size_t v = 0;
  for (; v + kLanes <= exact.size(); v += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const double p = static_cast<double>(exact[v + lane]) - p_max;
      const double q = static_cast<double>(mode[v + lane]) - q_max;
      const double weight = exp_nonpositive(p);
      exact_sum[lane] += weight;
      mode_sum[lane] += exp_nonpositive(q);
      weighted[lane] += weight * (p - q);
    }
  }
  for (; v < exact.size(); ++v) {
    const double p = static_cast<double>(exact[v]) - p_max;
    const double q = static_cast<double>(mode[v]) - q_max;
    const double weight = exp_nonpositive(p);
    exact_sum[0] += weight;
    mode_sum[0] += exp_nonpositive(q);
    weighted[0] += weight * (p - q);
  }
  return {.exact = total(exact_sum), .mode = total(mode_sum), .weighted = total(weighted)};
}

}  // namespace

TokenDivergence compare_logits(std::span<const float> exact,
                               std::span<const float> mode,
                               int32_t next_id) {
  const int32_t exact_top = top_id(exact);
  const int32_t mode_top = top_id(mode);
  const auto next = static_cast<size_t>(next_id);
  const auto p_max = static_cast<double>(exact[static_cast<size_t>(exact_top)]);
  const auto q_max = static_cast<double>(mode[static_cast<size_t>(mode_top)]);
  const Sums sums = sum_up(exact, mode, p_max, q_max);
  const double exact_log = std::log(sums.exact);
  const double mode_log = std::log(sums.mode);
  return {.kl = sums.weighted / sums.exact - exact_log + mode_log,
          .exact_nll = exact_log + p_max - static_cast<double>(exact[next]),
          .mode_nll = mode_log + q_max - static_cast<double>(mode[next]),
          .is_same_top = exact_top == mode_top};
}

void compare_rows_blocking(std::span<const float> exact,
                           std::span<const float> mode,
                           std::span<const int32_t> next_ids,
                           std::span<TokenDivergence> out,
                           RankGroup& threads) {
  const size_t num_rows = out.size();
  TESSERA_CHECK(num_rows > 0 && next_ids.size() == num_rows && exact.size() == mode.size() &&
                    exact.size() % num_rows == 0,
                "rows of different counts");
  const size_t width = exact.size() / num_rows;
  const auto num_threads = static_cast<size_t>(threads.size());
  threads.run_blocking([&](int rank) {
    for (auto row = static_cast<size_t>(rank); row < num_rows; row += num_threads) {
      out[row] = compare_logits(
          exact.subspan(row * width, width), mode.subspan(row * width, width), next_ids[row]);
    }
  });
}

int32_t top_id(std::span<const float> logits) noexcept {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace tessera
