// Where the images of a block lie in a prefill worker's cache. Any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

class BlockSource {
 public:
  BlockSource() = default;
  virtual ~BlockSource() = default;
  BlockSource(const BlockSource&) = delete;
  BlockSource& operator=(const BlockSource&) = delete;

  /// In memory that was registered with the sender.
  [[nodiscard]] virtual const void* image_address(int32_t block_id, int32_t image) const = 0;
  [[nodiscard]] virtual int64_t image_bytes(int32_t image) const = 0;
  [[nodiscard]] virtual int32_t num_images() const = 0;
  /// By image: the expected probe over tokens [begin, end) of a sequence with these blocks. Empty
  /// where none are kept. Engine thread, between steps.
  [[nodiscard]] virtual std::vector<double> probes(std::span<const int32_t> /*block_ids*/,
                                                   int64_t /*begin*/,
                                                   int64_t /*end*/) const {
    return {};
  }
};

}  // namespace tessera
