#include "engine/transport/device_pool.h"

#include <algorithm>

#include "engine/transport/device_guard.h"

namespace tessera {

Result<kernels::DeviceBuffer> DevicePool::take(int64_t num_bytes) {
  const auto found =
      std::find_if(free_.begin(), free_.end(), [num_bytes](const kernels::DeviceBuffer& buffer) {
        return buffer.num_bytes() >= num_bytes && buffer.num_bytes() / 2 <= num_bytes;
      });
  kernels::DeviceBuffer taken;
  if (found != free_.end()) {
    taken = std::move(*found);
    free_.erase(found);
    return taken;
  }
  const auto allocate = [&] { taken = mover_.allocate(num_bytes); };
  Status status = guard_device(allocate);
  if (!status.is_ok() && !free_.empty()) {
    free_.clear();  // waits; better than no link
    status = guard_device(allocate);
  }
  if (!status.is_ok()) {
    return status;
  }
  return taken;
}

}  // namespace tessera
