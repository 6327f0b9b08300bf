#include "engine/transport/checksum.h"

#include "engine/transport/checksum_rows.h"

namespace tessera {
uint64_t image_checksum(const void* image, int64_t num_bytes) {
  const char* bytes = static_cast<const char*>(image);
  const RowLoops& loops = best_row_loops();
  uint64_t sum = kernels::checksum_of_length(num_bytes);
  const int64_t num_full_rows = num_bytes / kChecksumRowBytes;
  for (int64_t row = 0; row < num_full_rows; ++row) {
    sum += loops.sum(bytes + (row * kChecksumRowBytes)) * kernels::checksum_row_factor(row);
  }
  const int64_t offset = num_full_rows * kChecksumRowBytes;
  if (offset < num_bytes) {
    sum += last_row(nullptr, bytes + offset, num_bytes - offset) *
           kernels::checksum_row_factor(num_full_rows);
  }
  return sum;
}

uint64_t copy_with_checksum(void* destination, const void* source, int64_t num_bytes) {
  char* to = static_cast<char*>(destination);
  const char* from = static_cast<const char*>(source);
  const RowLoops& loops = best_row_loops();
  const bool is_aligned = reinterpret_cast<uintptr_t>(to) % kStreamAlignment == 0;
  const auto copy_row = is_aligned ? loops.stream : loops.copy;
  uint64_t sum = kernels::checksum_of_length(num_bytes);
  const int64_t num_full_rows = num_bytes / kChecksumRowBytes;
  for (int64_t row = 0; row < num_full_rows; ++row) {
    const int64_t offset = row * kChecksumRowBytes;
    sum += copy_row(to + offset, from + offset) * kernels::checksum_row_factor(row);
  }
  const int64_t offset = num_full_rows * kChecksumRowBytes;
  if (offset < num_bytes) {
    sum += last_row(to + offset, from + offset, num_bytes - offset) *
           kernels::checksum_row_factor(num_full_rows);
  }
  order_stores();
  return sum;
}

}  // namespace tessera
