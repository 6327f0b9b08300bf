#include "kernels/cuda/tensor_map.h"

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/cuda/driver.h"

namespace tessera::kernels::cuda {

namespace {

constexpr int64_t kElement = 2;
constexpr int64_t kAlignment = 16;

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

}  // namespace

bool is_copy_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kAlignment == 0;
}

bool is_copy_aligned(int64_t stride) {
  return stride * kElement % kAlignment == 0;
}

CUtensorMap make_tensor_map(const BoxedTensor& tensor) {
  static const auto encode = driver_function<EncodeTiled>("cuTensorMapEncodeTiled", 12000);
  CUtensorMap map = {};
  const auto extent = [](int64_t size) {  // an empty tensor has no map, and no reader
    return static_cast<cuuint64_t>(std::max<int64_t>(size, 1));
  };
  const std::array<cuuint64_t, 3> size = {
      extent(tensor.size[0]), extent(tensor.size[1]), extent(tensor.size[2])};
  const std::array<cuuint64_t, 2> stride = {static_cast<cuuint64_t>(tensor.stride[0] * kElement),
                                            static_cast<cuuint64_t>(tensor.stride[1] * kElement)};
  const std::array<cuuint32_t, 3> box = {static_cast<cuuint32_t>(kBoxColumns),
                                         static_cast<cuuint32_t>(tensor.box[0]),
                                         static_cast<cuuint32_t>(tensor.box[1])};
  const std::array<cuuint32_t, 3> step = {1, 1, 1};
  const CUresult result = encode(&map,
                                 CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                                 3,
                                 const_cast<void*>(tensor.base),
                                 size.data(),
                                 stride.data(),
                                 box.data(),
                                 step.data(),
                                 CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  TESSERA_CHECK(result == CUDA_SUCCESS, "a tensor map of checked sizes");
  return map;
}

}  // namespace tessera::kernels::cuda
