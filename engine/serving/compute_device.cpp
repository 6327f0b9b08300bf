#include "engine/serving/compute_device.h"

#include <algorithm>
#include <charconv>
#include <thread>

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "kernels/cpu/cpu_backend.h"
#ifdef TESSERA_HAS_CUDA
#include "engine/parallel/nccl_communicator.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/peer_sum.h"
#endif

namespace tessera {
namespace {

using kernels::DType;

#ifdef TESSERA_HAS_CUDA
constexpr bool kHasCuda = true;
using kernels::cuda::create_cuda_backend;
using kernels::cuda::device_memory;
using kernels::cuda::DeviceMemory;
using kernels::cuda::num_cuda_devices;
using kernels::cuda::PeerSum;

/// Elements of a sum that may go through peer memory: 1,024 rows of 2,048, 256 of 8,192.
constexpr int64_t kMaxPeerSum = int64_t{1} << 21;

/// Null where the GPUs cannot have memory in common: NCCL does without.
std::shared_ptr<PeerSum> connect_memory(std::span<kernels::Device* const> devices) {
  try {
    return PeerSum::create(devices, kMaxPeerSum);
  } catch (const DeviceError& error) {
    log_warning("no_peer_memory", "error", error.what());
    return nullptr;
  }
}

Result<std::vector<RankCommunicators>> connect_gpus(const WorkerConfig& worker,
                                                    std::span<kernels::Backend* const> backends,
                                                    int subgroup_size,
                                                    int64_t max_operand_bytes) {
  if (backends.size() == 1) {  // nobody to reach: NCCL need not be there
    return make_thread_communicators(1, subgroup_size);
  }
  NcclOptions options;
  options.library = worker.nccl_library;
  options.staging_bytes = max_operand_bytes;
  for (kernels::Backend* backend : backends) {
    options.memory.push_back(&backend->device());
    options.devices.push_back(kernels::cuda::device_index(backend->device()));
  }
  options.native_stream = [devices = options.memory](int rank, kernels::StreamView stream) {
    return kernels::cuda::native_stream(*devices[static_cast<size_t>(rank)], stream);
  };
  const std::shared_ptr<PeerSum> peers =
      worker.all_reduce == "auto" ? connect_memory(options.memory) : nullptr;
  if (peers != nullptr) {
    options.small_sum = {
        .run =
            [peers](int rank, float* x, int64_t count, kernels::StreamView stream) {
              peers->run(rank, x, count, stream);
            },
        .run_norm =
            [peers](int rank, const kernels::RmsNormParams& norm, kernels::StreamView stream) {
              return peers->run_norm(rank, norm, stream);
            },
        .run_scatter =
            [peers](int rank,
                    const float* partial,
                    const kernels::TensorView& out,
                    kernels::StreamView stream) {
              return peers->run_scatter(rank, partial, out, stream);
            },
        .abort = [peers] { peers->abort(); },
        .max_elements = peers->max_elements()};
  }
  try {
    return make_nccl_communicators(options, subgroup_size);
  } catch (const DeviceError& error) {
    return unavailable(str_cat("GPUs cannot be connected: ", error.what()));
  }
}
#else
constexpr bool kHasCuda = false;
struct DeviceMemory {
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
};
int num_cuda_devices() noexcept {
  return 0;
}
DeviceMemory device_memory(int) {
  return {};
}
std::unique_ptr<kernels::Backend> create_cuda_backend(int) {
  return nullptr;
}
Status check_nccl(const std::string&) {
  return Status::ok();
}
Result<std::vector<RankCommunicators>> connect_gpus(const WorkerConfig&,
                                                    std::span<kernels::Backend* const>,
                                                    int,
                                                    int64_t) {
  return unavailable("this binary was built without the CUDA backend");
}
#endif

/// Attention's running state is read and written once a tile: a few tiles for a long context.
constexpr int64_t kGpuContextTile = 8192;

int threads_of_rank(const WorkerConfig& worker, int64_t num_ranks) {
  return std::max(1, compute_threads(worker) / static_cast<int>(num_ranks));
}

/// Why these ranks cannot compute on GPUs; OK when they can.
Status check_cuda(const WorkerConfig& worker, int64_t num_ranks) {
  if (!kHasCuda) {
    return invalid_argument("--device cuda: this binary was built without the CUDA backend");
  }
  if (num_cuda_devices() < num_ranks) {
    return invalid_argument(str_cat("--device cuda: each rank needs a Hopper GPU, ",
                                    num_ranks,
                                    " wanted, found ",
                                    num_cuda_devices()));
  }
  return num_ranks > 1 ? check_nccl(worker.nccl_library) : Status::ok();
}

Result<DeviceKind> choose_kind(const WorkerConfig& worker, int64_t num_ranks) {
  if (worker.device == "cpu") {
    return DeviceKind::kCpu;
  }
  const Status status = check_cuda(worker, num_ranks);
  if (status.is_ok()) {
    return DeviceKind::kCuda;
  }
  return worker.device == "auto" ? Result<DeviceKind>(DeviceKind::kCpu) : status;
}

Result<DType> choose_dtype(const WorkerConfig& worker, DeviceKind kind) {
  if (worker.dtype == "float32") {
    return DType::kFloat32;
  }
  if (kind == DeviceKind::kCuda) {
    return DType::kBFloat16;
  }
  const auto backend = kernels::cpu::create_cpu_backend(1);
  if (worker.dtype == "auto") {
    return backend->preferred_dtype();
  }
  if (backend->preferred_dtype() != DType::kBFloat16) {
    return invalid_argument(str_cat("dtype ",
                                    worker.dtype,
                                    ": ",
                                    backend->device().description(),
                                    " has no bfloat16 products; use float32"));
  }
  return DType::kBFloat16;
}

/// What --gpu-memory-utilization leaves of the fullest GPU.
Result<int64_t> gpu_bytes(const WorkerConfig& worker, int64_t num_ranks) {
  const std::string& text = worker.gpu_memory_utilization;
  double share = 0.0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), share);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() ||
      !(share > 0.0 && share <= 1.0)) {
    return invalid_argument(
        str_cat("--gpu-memory-utilization is ", text, ", expected a number above 0, at most 1"));
  }
  int64_t least = INT64_MAX;
  for (int rank = 0; rank < static_cast<int>(num_ranks); ++rank) {
    const DeviceMemory memory = device_memory(rank);
    const auto allowed = static_cast<int64_t>(share * static_cast<double>(memory.total_bytes));
    const int64_t used = memory.total_bytes - memory.free_bytes;
    least = std::min(least, std::max<int64_t>(0, allowed - used));
  }
  return least;
}

}  // namespace

Result<ComputeDevice> choose_compute_device(const WorkerConfig& worker, int64_t num_ranks) {
  TESSERA_TRY(const DeviceKind kind, choose_kind(worker, num_ranks));
  ComputeDevice device{.kind = kind, .num_threads = threads_of_rank(worker, num_ranks)};
  TESSERA_TRY(device.dtype, choose_dtype(worker, kind));
  if (kind == DeviceKind::kCpu) {
    device.available_bytes = available_memory_bytes();
    return device;
  }
  device.context_tile = kGpuContextTile;
  TESSERA_TRY(device.available_bytes, gpu_bytes(worker, num_ranks));
  return device;
}

DType cache_dtype(const WorkerConfig& worker, DType dtype) noexcept {
  return worker.kv_cache_dtype == "fp8_e4m3" ? DType::kFloat8E4M3 : dtype;
}

MemoryBudget memory_budget(const ComputeDevice& device, int64_t num_ranks) noexcept {
  const bool is_gpu = device.kind == DeviceKind::kCuda;
  return {.available_bytes = device.available_bytes * (is_gpu ? num_ranks : 1),
          .is_exclusive = is_gpu,
          .keeps_float8 = is_gpu && device.dtype == DType::kBFloat16};
}

int compute_threads(const WorkerConfig& worker) noexcept {
  return worker.threads != 0 ? static_cast<int>(worker.threads)
                             : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

std::unique_ptr<kernels::Backend> make_backend(const ComputeDevice& device, int64_t rank) {
  if (device.kind == DeviceKind::kCuda) {
    return create_cuda_backend(static_cast<int>(rank));
  }
  return kernels::cpu::create_cpu_backend(device.num_threads);
}

CommunicatorFactory communicator_factory(const ComputeDevice& device, const WorkerConfig& worker) {
  if (device.kind == DeviceKind::kCpu) {
    return nullptr;
  }
  return [worker](std::span<kernels::Backend* const> backends,
                  int subgroup_size,
                  int64_t max_operand_bytes) {
    return connect_gpus(worker, backends, subgroup_size, max_operand_bytes);
  };
}

}  // namespace tessera
