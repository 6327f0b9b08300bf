#include "kernels/cuda/peer_memory.h"

#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/driver.h"

namespace tessera::kernels::cuda {
namespace {

constexpr unsigned kSince = 10020;  // CUDA 10.2 has all of these

struct Driver {
  decltype(&cuMemGetAllocationGranularity) granularity =
      driver_function<decltype(&cuMemGetAllocationGranularity)>("cuMemGetAllocationGranularity",
                                                                kSince);
  decltype(&cuMemAddressReserve) reserve =
      driver_function<decltype(&cuMemAddressReserve)>("cuMemAddressReserve", kSince);
  decltype(&cuMemAddressFree) free =
      driver_function<decltype(&cuMemAddressFree)>("cuMemAddressFree", kSince);
  decltype(&cuMemCreate) create = driver_function<decltype(&cuMemCreate)>("cuMemCreate", kSince);
  decltype(&cuMemRelease) release =
      driver_function<decltype(&cuMemRelease)>("cuMemRelease", kSince);
  decltype(&cuMemMap) map = driver_function<decltype(&cuMemMap)>("cuMemMap", kSince);
  decltype(&cuMemUnmap) unmap = driver_function<decltype(&cuMemUnmap)>("cuMemUnmap", kSince);
  decltype(&cuMemSetAccess) set_access =
      driver_function<decltype(&cuMemSetAccess)>("cuMemSetAccess", kSince);
};

const Driver& driver() {
  static const Driver instance;
  return instance;
}

void check_driver(CUresult code, const char* call) {
  if (code != CUDA_SUCCESS) {
    throw DeviceError(std::string(call) + ": CUDA driver error " + std::to_string(code));
  }
}

CUmemLocation location_of(int device) {
  CUmemLocation location = {};
  location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = device;
  return location;
}

}  // namespace

PeerMemory::PeerMemory(int owner, std::span<const int> devices, int64_t num_bytes, int fill) {
  try {
    map(owner, devices, num_bytes, fill);
  } catch (...) {
    release();
    throw;
  }
}

void PeerMemory::map(int owner, std::span<const int> devices, int64_t num_bytes, int fill) {
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = location_of(owner);
  size_t page = 0;
  check_driver(driver().granularity(&page, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
               "cuMemGetAllocationGranularity");
  const size_t size = (static_cast<size_t>(num_bytes) + page - 1) / page * page;
  num_bytes_ = static_cast<int64_t>(size);
  check_driver(driver().create(&handle_, size, &properties, 0), "cuMemCreate");
  CUdeviceptr address = 0;
  check_driver(driver().reserve(&address, size, 0, 0, 0), "cuMemAddressReserve");
  data_ = reinterpret_cast<char*>(address);
  check_driver(driver().map(address, size, 0, handle_, 0), "cuMemMap");
  std::vector<CUmemAccessDesc> access;
  for (const int device : devices) {
    access.push_back({location_of(device), CU_MEM_ACCESS_FLAGS_PROT_READWRITE});
  }
  check_driver(driver().set_access(address, size, access.data(), access.size()), "cuMemSetAccess");
  TESSERA_CUDA(cudaMemset(data_, fill, size));
  TESSERA_CUDA(cudaStreamSynchronize(cudaStreamLegacy));  // other streams do not wait for it
}

void PeerMemory::release() noexcept {
  const auto size = static_cast<size_t>(num_bytes_);
  if (data_ != nullptr) {
    const auto address = reinterpret_cast<CUdeviceptr>(data_);
    static_cast<void>(driver().unmap(address, size));
    static_cast<void>(driver().free(address, size));
  }
  if (handle_ != 0) {
    static_cast<void>(driver().release(handle_));
  }
}

PeerMemory::~PeerMemory() {
  release();
}

PeerMemory::PeerMemory(PeerMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      num_bytes_(other.num_bytes_),
      handle_(std::exchange(other.handle_, 0)) {}

}  // namespace tessera::kernels::cuda
