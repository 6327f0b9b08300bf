// Float8 rows of the latent cache (kernels/ops/latent_row.h), element by element: correct first.

#include <array>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/latent_rows.h"

namespace tessera::kernels::cpu {
namespace {

constexpr uint8_t kFloat8NaN = 0x7f;

using Float8Table = std::array<float, 256>;

Float8Table make_table() {
  Float8Table table{};
  for (size_t bits = 0; bits < table.size(); ++bits) {
    table[bits] = float8_e4m3_to_float(static_cast<uint8_t>(bits));
  }
  return table;
}

const Float8Table& float8_table() {
  static const Float8Table table = make_table();
  return table;
}

template <typename T>
T converted(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    return BFloat16::from_float(value);
  }
}

uint8_t encoded(float value, float inverse_scale) {
  return std::isfinite(value) ? float8_e4m3_from_float(value * inverse_scale) : kFloat8NaN;
}

}  // namespace

int float8_exponent(const LatentColumns& columns, const float* latent) {
  float largest = 0.0F;
  columns.for_each_range([&](const ColumnRange& range, int64_t) {
    for (int64_t i = range.begin; i < range.begin + range.count; ++i) {
      const float magnitude = std::fabs(latent[i]);
      largest = magnitude > largest ? magnitude : largest;  // not NaN
    }
  });
  return float8_scale_exponent(largest);
}

void round_to_float8(const float* latent, int64_t count, int exponent, float* out) {
  const Float8Table& table = float8_table();
  const float scale = float8_scale(exponent);
  const float inverse = float8_scale(-exponent);
  for (int64_t i = 0; i < count; ++i) {
    out[i] = table[encoded(latent[i], inverse)] * scale;
  }
}

void write_float8_row(const LatentCacheView& cache,
                      const LatentColumns& columns,
                      const float* latent,
                      const float* rope,
                      char* row) {
  const LatentRowLayout layout = cache.layout();
  const int exponent = float8_exponent(columns, latent);
  const float scale = float8_scale(exponent);
  const float inverse = float8_scale(-exponent);
  std::memset(row, 0, static_cast<size_t>(layout.row_bytes));
  columns.for_each_range([&](const ColumnRange& range, int64_t row_begin) {
    for (int64_t i = 0; i < range.count; ++i) {
      row[row_begin + i] = static_cast<char>(encoded(latent[range.begin + i], inverse));
    }
  });
  std::memcpy(row + layout.scale, &scale, sizeof(scale));
  for (int64_t i = 0; i < cache.rope_width; ++i) {
    const BFloat16 value = BFloat16::from_float(rope[i]);
    std::memcpy(row + layout.rope + 2 * i, &value, sizeof(value));
  }
}

template <typename T>
void read_float8_latents(
    const LatentCacheView& cache, const char* row, int64_t begin, int64_t count, T* out) {
  float scale = 0.0F;
  std::memcpy(&scale, row + cache.layout().scale, sizeof(scale));
  const Float8Table& table = float8_table();
  for (int64_t i = 0; i < count; ++i) {
    out[i] = converted<T>(table[static_cast<uint8_t>(row[begin + i])] * scale);
  }
}

template <typename T>
void read_float8_rope(const LatentCacheView& cache, const char* row, T* out) {
  const char* rope = row + cache.layout().rope;
  for (int64_t i = 0; i < cache.rope_width; ++i) {
    BFloat16 value;
    std::memcpy(&value, rope + 2 * i, sizeof(value));
    out[i] = converted<T>(value.to_float());
  }
}

template void read_float8_latents(const LatentCacheView&, const char*, int64_t, int64_t, float*);
template void read_float8_latents(const LatentCacheView&, const char*, int64_t, int64_t, BFloat16*);
template void read_float8_rope(const LatentCacheView&, const char*, float*);
template void read_float8_rope(const LatentCacheView&, const char*, BFloat16*);

}  // namespace tessera::kernels::cpu
